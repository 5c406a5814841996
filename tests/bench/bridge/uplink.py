"""How fast a stopped bridge's session is drained to Kafka, against bare subscribers on equal sessions."""

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from dmpd.runtime.mqtt import MqttClient
from tests.bench.bridge.publishers import connect_all, row
from tests.bench.bridge.servers import BARE, Platform, wait_for
from tests.bench.bridge.size import Size
from tests.bench.report import Figure, figure

_ROOT = Path(__file__).resolve().parents[3]
_FILTERS = ("dmp/v1/+/+/info", "dmp/v1/+/+/rsp/+")
_TIMEOUT_S = 1_200.0
"""A reference in Python takes minutes for it on a busy machine."""


def measure(platform: Platform, size: Size) -> list[Figure]:
    found: dict[str, list[dict[str, float]]] = {"paho": [], "runtime": [], "bridge": []}
    for run in range(size.runs):
        asyncio.run(_leave_sessions(platform))
        uvloop.run(_fill(platform, size, run))
        print(f"run {run}: {size.messages} messages wait in each of {len(found)} sessions", flush=True)
        kinds = list(found)
        random.Random(run).shuffle(kinds)
        for kind in kinds:
            found[kind].append(_bridge(platform, size) if kind == "bridge" else _bare(platform, kind, size))
            print(f"run {run}, {kind}: {found[kind][-1]}", flush=True)
    rates, cpus = ({kind: [one[what] for one in found[kind]] for kind in found} for what in ("per_s", "cpu_us"))
    return [
        figure("uplink", "messages/s", rates["bridge"], reference=rates["paho"], bar=">= 0.8x"),
        figure("uplink/cpu", "us/message", cpus["bridge"], reference=cpus["paho"]),
        figure("uplink/own_client", "messages/s", rates["bridge"], reference=rates["runtime"]),
        figure("uplink/own_client_cpu", "us/message", cpus["bridge"], reference=cpus["runtime"]),
    ]


async def _leave_sessions(platform: Platform) -> None:
    for principal in ("svc-bridge", *BARE):
        client = await MqttClient.connect(
            platform.settings(principal),
            client_id=principal,
            clean_start=False,
            session_expiry_s=86_400,
            will=None,
            on_message=lambda message: None,
            on_puback=lambda mid, code: None,
            receive_maximum=10,
        )
        await client.subscribe(_FILTERS)
        await client.disconnect()


async def _fill(platform: Platform, size: Size, run: int) -> None:
    """Every publisher's messages into the sessions that wait."""
    raes = [f"R{n:05}" for n in range(size.publishers)]
    publishers = await connect_all(raes, [platform.settings(rae) for rae in raes])
    each = size.messages // size.publishers
    first = 1 + run * each
    await asyncio.gather(*(one.publish_all([row(one.rae, first + n) for n in range(each)]) for one in publishers))
    for one in publishers:
        one.close()


def _bare(platform: Platform, kind: str, size: Size) -> dict[str, float]:
    principal = BARE[kind == "runtime"]
    settings = msgspec.json.encode(platform.settings(principal)).decode()
    command = [sys.executable, "-m", "tests.bench.bridge.bare", kind, settings, principal, str(size.messages)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _bridge(platform: Platform, size: Size) -> dict[str, float]:
    topics = platform.topics()
    with platform.bridge(topics) as bridge:
        wait_for(lambda: bridge.metric("dmpd_bridge_received_total") > 0, "the first message", _TIMEOUT_S)
        began_s, began_cpu_s = time.monotonic(), bridge.cpu_s()
        already = bridge.metric("dmpd_bridge_delivered_total")
        wait_for(lambda: bridge.metric("dmpd_bridge_delivered_total") >= size.messages, "all", _TIMEOUT_S)
        seconds, cpu_s = time.monotonic() - began_s, bridge.cpu_s() - began_cpu_s
        wait_for(lambda: bridge.metric("dmpd_bridge_pubacks_total") >= size.messages, "all acknowledged", _TIMEOUT_S)
        if bridge.metric("dmpd_bridge_redelivered_total"):
            raise RuntimeError("the broker sent messages again")
    records = sum(platform.kafka.end_offsets(topics.info))
    if records != size.messages:
        raise RuntimeError(f"{records} records in Kafka, {size.messages} sent")
    counted = size.messages - already
    return {"per_s": counted / seconds, "cpu_us": cpu_s / counted * 1e6}
