"""The real process: simulated RAEs against a real Mosquitto that dies, and an ending in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dmpd.local_registry.store import DATABASE_NAME, read_devices
from dmpd.model.messages import Checkpoint, Message
from dmpd.runtime.health import fetch
from tests.support.aio import async_test
from tests.support.edge_bridge import EdgeBridge
from tests.support.services import MosquittoService, public_folder, start_mosquitto

PROGRAM = """
import logging, sys
from pathlib import Path
from dmpd.local_registry.daemon import run_simulated
from dmpd.local_registry.simulate import SimulateOptions
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import MqttSettings
logging.basicConfig(level="INFO")
raes, devices, rate, state, certificates, port = sys.argv[1:]
sys.exit(run_simulated(SimulateOptions(
    raes=int(raes), devices=int(devices), seed=1, rate_per_s=float(rate), state_dir=Path(state),
    certificates=Path(certificates), mqtt=MqttSettings(port=int(port))), Lifecycle("simulate")))
"""


class Simulation:
    """A running process."""

    def __init__(self, broker: MosquittoService, state_dir: Path, *, raes: int, devices: int, rate: float) -> None:
        self.state_dir = state_dir
        self.serials = [f"sim-{number:04d}" for number in range(1, raes + 1)]
        for serial in self.serials:
            broker.authority.client(serial)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PROGRAM,
                str(raes),
                str(devices),
                str(rate),
                str(state_dir),
                str(broker.authority.folder),
                str(broker.port),
            ]
        )

    def status(self) -> dict[str, Any]:
        try:
            code, body = fetch(f"unix:{self.state_dir / 'control.sock'}", "/status")
        except OSError:
            return {}
        assert code == 200, body
        return json.loads(body)  # type: ignore[no-any-return]

    async def until(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0) -> dict[str, Any]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            assert self.process.poll() is None, "the process ended"
            status = await asyncio.to_thread(self.status)
            if status and condition(status):
                return status
            assert time.monotonic() < deadline_s, status
            await asyncio.sleep(0.05)


@contextmanager
def simulation(
    broker: MosquittoService, state_dir: Path, *, raes: int = 3, devices: int = 20, rate: float = 60.0
) -> Iterator[Simulation]:
    one = Simulation(broker, state_dir, raes=raes, devices=devices, rate=rate)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


def covered(taken: list[Message]) -> dict[tuple[str, str], int]:
    """(rae, session) → rev up to which nothing is missing, by the rules of the cloud."""
    revs: dict[tuple[str, str], int] = {}
    for message in taken:
        rev = getattr(message, "rev", None)
        if rev is not None:
            key = (message.rae, message.session)
            stored = revs.get(key, 0)
            if isinstance(message, Checkpoint) or rev == stored + 1:
                revs[key] = max(stored, rev)
    return revs


@pytest.mark.services
@async_test
async def test_broker_and_process_killed_lose_nothing_and_term_ends_in_order(tmp_path: Path) -> None:
    taken: list[Message] = []
    with public_folder() as folder, start_mosquitto(folder) as broker:
        bridge = EdgeBridge()
        await bridge.open(broker.settings("svc-bridge"))
        with simulation(broker, tmp_path) as one:
            await one.until(lambda status: status["connected"] == 3 and status["committed"] > 100)
            broker.process.kill()
            taken += bridge.taken
            committed = (await one.until(lambda status: status["connected"] == 0))["committed"]
            await one.until(lambda status: status["committed"] > committed + 50 and status["outbox_rows"] > 50)
            broker.process.start()
            bridge = EdgeBridge()
            await bridge.open(broker.settings("svc-bridge"))
            await one.until(lambda status: status["connected"] == 3 and status["outbox_rows"] < 50)
        with simulation(broker, tmp_path) as one:  # the first was killed with -9
            await one.until(lambda status: status["connected"] == 3 and status["outbox_rows"] < 50)
            began_s = time.monotonic()
            one.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(one.process.wait, 25) == 0
            assert time.monotonic() - began_s < 20
        taken += bridge.taken
        await bridge.close()
    states = {message.rae: message.state for message in taken if type(message).__name__ == "Status"}  # type: ignore[union-attr]
    assert states == dict.fromkeys(one.serials, "disconnected")
    found = covered(taken)
    for serial in one.serials:
        devices = read_devices(tmp_path / serial / DATABASE_NAME)
        assert len([device for device in devices if device.closed is None]) >= 19
        for device in devices:
            assert found.get((serial, device.session)) == device.rev


@pytest.mark.services
@async_test
async def test_second_term_ends_a_drain_that_would_wait(tmp_path: Path) -> None:
    with public_folder() as folder, start_mosquitto(folder) as broker:
        bridge = EdgeBridge()
        bridge.reports = False
        await bridge.open(broker.settings("svc-bridge"))
        with simulation(broker, tmp_path, raes=1) as one:
            await one.until(lambda status: status["connected"] and status["outbox_rows"] > 20)
            one.process.send_signal(signal.SIGTERM)
            await one.until(lambda status: status["state"] == "draining")
            began_s = time.monotonic()
            one.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(one.process.wait, 10) == 0
            assert time.monotonic() - began_s < 5
        await bridge.close()


@pytest.mark.services
@async_test
async def test_two_hundred_devices_stay_within_their_memory(tmp_path: Path) -> None:
    with public_folder() as folder, start_mosquitto(folder) as broker:
        bridge = EdgeBridge()
        await bridge.open(broker.settings("svc-bridge"))
        with simulation(broker, tmp_path, raes=1, devices=200, rate=50.0) as one:
            await one.until(lambda status: status["committed"] > 500)
            pages = int(Path(f"/proc/{one.process.pid}/statm").read_text().split()[1])  # noqa: ASYNC240 - /proc does not block
            rss_mib = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
            print(f"RSS with 200 devices: {rss_mib:.1f} MiB")
            assert rss_mib <= 80
        await bridge.close()
