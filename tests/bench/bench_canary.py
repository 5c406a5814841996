"""The crowd alone: 3,000 clients over mutual TLS at a real Mosquitto that shares this machine, and a subscriber.

The same connects and publishes by ``MqttClient`` (paho behind our own TLS and framing), two processes too, are the
reference. Three rounds of each, interleaved; 3 minutes. ``--clients`` and ``--rounds`` for less.
"""

import argparse
import asyncio
import multiprocessing
import resource
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import uvloop

from dmpd.canary.crowd import Connected, Job, Told
from dmpd.canary.plan import Plan, payload, rae_of, shares, topic_of
from dmpd.canary.workers import Workers
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.settings import MqttSettings
from tests.bench.report import figure, publish
from tests.support.services import public_folder, start_mosquitto

ROUNDS = 3
PROCESSES = 2
CHANGES = 8
AT_ONCE = 100
WINDOW = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    clients = options.clients
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # Mosquitto inherits it
    own: list[dict[str, float]] = []
    paho: list[dict[str, float]] = []
    with public_folder() as folder, start_mosquitto(folder) as service:
        for number in range(1, clients + 1):
            service.authority.client(rae_of(number))
        for round_number in range(options.rounds):
            own.append(asyncio.run(_with_subscriber(service, lambda: _own(service, clients))))
            paho.append(asyncio.run(_with_subscriber(service, lambda: _paho(service, clients))))
            print(f"round {round_number + 1}: own {own[-1]}, paho {paho[-1]}", flush=True)
    units = {
        "connects_per_s": "1/s",
        "messages_per_s": "1/s",
        "cpu_s_per_1000_clients": "s",
        "rss_mib_per_1000_clients": "MiB",
        "broker_cpu_s": "s",
    }
    publish(
        "canary",
        [
            figure(name, unit, [one[name] for one in own], reference=[one[name] for one in paho])
            for name, unit in units.items()
        ],
    )


async def _with_subscriber(service, crowd):
    """Run ``crowd`` beside one who takes all that it says, as the bridge would; adds the broker's processor time."""
    client = None

    def take(message):
        client.ack(message)

    client = await MqttClient.connect(
        service.settings("svc-bridge"),
        client_id="svc-bridge",
        clean_start=True,
        session_expiry_s=0,
        will=None,
        on_message=take,
        on_puback=lambda *_: None,
        receive_maximum=1000,
    )
    await client.subscribe(["dmp/v1/+/+/info"])
    before_s = _cpu_s(service.process.pid)
    found = await crowd()
    found["broker_cpu_s"] = _cpu_s(service.process.pid) - before_s
    await client.disconnect()
    return found


async def _own(service, clients):
    plan = Plan(
        run=str(uuid.uuid4()),
        seed=1,
        epoch=1,
        first=1,
        last=clients,
        changes=CHANGES,
        started_ms=time.time_ns() // 1_000_000,
    )
    settings = service.settings(rae_of(1))
    jobs = [
        Job(
            plan=plan.part(first, last),
            whole_first=1,
            whole_last=clients,
            host="127.0.0.1",
            port=service.port,
            ca_file=settings.ca_file,
            certificates_dir=str(Path(settings.cert_file).parent),
            ramp="linear",
            ramp_s=1.0,
            profile="burst",
            flash_s=1.0,
            began_ns=time.monotonic_ns(),
        )
        for first, last in shares(1, clients, PROCESSES)
    ]
    workers = Workers(jobs)
    try:
        await workers.start()
        prepared = await workers.order("report", Told)
        connected = await workers.order("connect", Connected)
        assert sum(one.clients for one in connected) == clients, connected[0].errors
        took_s = max(await workers.order("flash", float))
        told = await workers.order("report", Told)
        await workers.order("close", type(None))
    finally:
        await workers.stop()
    cpu_s = sum(one.cpu_s for one in told) - sum(one.cpu_s for one in prepared)
    return _round(clients, max(one.took_s for one in connected), took_s, cpu_s, sum(one.rss_bytes for one in told))


async def _paho(service, clients):
    loop = asyncio.get_running_loop()
    settings = service.settings(rae_of(1))
    run = str(uuid.uuid4())
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = await asyncio.gather(
            *(
                loop.run_in_executor(pool, _paho_part, settings, run, first, last)
                for first, last in shares(1, clients, PROCESSES)
            )
        )
    connect_s, flash_s, cpu_s, rss_bytes = zip(*parts, strict=True)
    return _round(clients, max(connect_s), max(flash_s), sum(cpu_s), sum(rss_bytes))


def _paho_part(settings: MqttSettings, run: str, first: int, last: int) -> tuple[float, float, float, int]:
    plan = Plan(run=run, seed=1, epoch=1, first=first, last=last, changes=CHANGES, started_ms=1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_paho_crowd(settings, plan))


async def _paho_crowd(settings: MqttSettings, plan: Plan) -> tuple[float, float, float, int]:
    folder = Path(settings.cert_file).parent
    gate = asyncio.Semaphore(AT_ONCE)
    windows = {number: asyncio.Semaphore(WINDOW) for number in plan.numbers}
    cpu_s, began_s = time.process_time(), time.monotonic()

    async def connect(number):
        name = rae_of(number)
        own = MqttSettings(
            host="127.0.0.1",
            port=settings.port,
            ca_file=settings.ca_file,
            cert_file=str(folder / f"{name}.crt"),
            key_file=str(folder / f"{name}.key"),
            connect_timeout_s=60,
            keepalive_s=60,
        )
        async with gate:
            client = await MqttClient.connect(
                own,
                client_id=name,
                clean_start=True,
                session_expiry_s=0,
                will=None,
                on_message=lambda _: None,
                on_puback=lambda *_: windows[number].release(),
                receive_maximum=20,
            )
            await client.subscribe([f"dmp/v1/{name}/+/cmd/+", f"dmp/v1/{name}/rae/ack"])
            return number, client

    clients = dict(await asyncio.gather(*(connect(number) for number in plan.numbers)))
    connected_s = time.monotonic()

    async def flash(number):
        for slot in range(2, plan.event_slot + 1):
            await windows[number].acquire()
            clients[number].publish(topic_of(plan, number, slot), payload(plan, number, slot, 1), qos=1)
        for _ in range(WINDOW):
            await windows[number].acquire()

    await asyncio.gather(*(flash(number) for number in plan.numbers))
    done_s, cpu_s = time.monotonic(), time.process_time() - cpu_s
    rss_bytes = _rss_bytes()
    await asyncio.gather(*(client.disconnect() for client in clients.values()))
    return connected_s - began_s, done_s - connected_s, cpu_s, rss_bytes


def _round(clients: int, connect_s: float, flash_s: float, cpu_s: float, rss_bytes: int) -> dict[str, float]:
    return {
        "connects_per_s": round(clients / connect_s, 1),
        "messages_per_s": round(clients * (CHANGES + 1) / flash_s, 1),
        "cpu_s_per_1000_clients": round(cpu_s / clients * 1000, 3),
        "rss_mib_per_1000_clients": round(rss_bytes / 2**20 / clients * 1000, 1),
    }


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


if __name__ == "__main__":
    main()
