"""One RAE's engine on a real Mosquitto: nobody subscribed, the will, the farewell, retained requests."""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from dmpd.local_registry.engine import Engine
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.local_registry.sources.simulated import SimulatedLan
from dmpd.model.codec import encode
from dmpd.model.messages import Checkpoint, Request, Status
from dmpd.model.topics import cmd_topic
from dmpd.runtime.mqtt import Message as MqttMessage
from dmpd.runtime.mqtt import MqttClient
from tests.support.aio import async_test, until
from tests.support.edge_bridge import EdgeBridge
from tests.support.services import MosquittoService, public_folder, start_mosquitto

pytestmark = pytest.mark.services


@asynccontextmanager
async def engine(broker: MosquittoService, state_dir: Path, rae: str) -> AsyncIterator[Engine]:
    with ThreadPoolExecutor(1) as executor:
        one = Engine(
            LocalRegistrySettings(rae=rae, state_dir=str(state_dir), mqtt=broker.settings(rae)),
            [SimulatedLan(devices=5, rate_per_s=0.0, seed="s")],
            connect=MqttClient.connect,
            executor=executor,
            random=Random(1).random,
            new_session=lambda: str(uuid.uuid4()),
            boot_id="boot",
            slots=asyncio.Semaphore(1),
        )
        running = asyncio.create_task(one.run())
        ticking = asyncio.create_task(tick(one))
        try:
            yield one
        finally:
            running.cancel()
            ticking.cancel()
            await asyncio.gather(running, ticking, return_exceptions=True)


async def tick(one: Engine) -> None:
    while True:
        await asyncio.sleep(0.05)
        one.tick(time.monotonic())


def statuses(bridge: EdgeBridge, rae: str) -> list[str]:
    """The states in order, repeats (the periodic ones) left out."""
    states = [message.state for message in bridge.taken if isinstance(message, Status) and message.rae == rae]
    return [state for state, _ in itertools.groupby(states)]


@async_test
async def test_rows_wait_while_nobody_subscribes_and_go_when_the_bridge_comes(tmp_path: Path) -> None:
    with public_folder() as folder, start_mosquitto(folder) as broker:
        async with engine(broker, tmp_path, "R1") as one:
            await until(lambda: one.uplink.connected and one.journal.committed == 5, "five revisions committed")
            await until(lambda: one.journal.window.bridge_absent, "no bridge is noticed")
            assert one.journal.rows == 5
            bridge = EdgeBridge()
            await bridge.open(broker.settings("svc-bridge"))
            await until(lambda: one.journal.rows == 0, "all durable")
            await until(lambda: "ready" in statuses(bridge, "R1"), "R1 is ready")
            assert len({message.session for message in bridge.taken if isinstance(message, Checkpoint)}) == 5
            await bridge.close()


@async_test
async def test_will_says_lost_and_a_graceful_end_says_disconnected(tmp_path: Path, mosquitto: MosquittoService) -> None:
    rae = f"R-{uuid.uuid4().hex[:8]}"
    bridge = EdgeBridge()
    await bridge.open(mosquitto.settings("svc-bridge"))
    async with engine(mosquitto, tmp_path, rae) as one:
        await until(lambda: statuses(bridge, rae) == ["ready"], "ready")
        client = one.uplink._client
        assert isinstance(client, MqttClient)
        client.abort()
        await until(lambda: statuses(bridge, rae) == ["ready", "lost", "ready"], "lost and back")
        await one.drain(5.0)
        await until(lambda: statuses(bridge, rae) == ["ready", "lost", "ready", "draining", "disconnected"], "its end")
    await bridge.close()
    late = EdgeBridge()
    await late.open(mosquitto.settings("svc-bridge"))
    await until(lambda: [status.state for status in late.retained if status.rae == rae] == ["disconnected"], "retained")
    await late.close()


@async_test
async def test_requests_published_as_retained_are_ignored_when_they_come_and_later(
    tmp_path: Path, mosquitto: MosquittoService
) -> None:
    rae = f"R-{uuid.uuid4().hex[:8]}"
    heard: list[MqttMessage] = []
    bridge = await MqttClient.connect(
        mosquitto.settings("svc-bridge"),
        client_id="svc-bridge",
        clean_start=True,
        session_expiry_s=0,
        will=None,
        on_message=heard.append,
        on_puback=lambda mid, code: None,
        receive_maximum=1000,
    )
    await bridge.subscribe([f"dmp/v1/{rae}/+/info", f"dmp/v1/{rae}/+/rsp/+"])

    def ask(name: str, *, retain: bool = False) -> None:
        request = Request(v=1, rae=rae, session="rae", at=datetime.now(UTC), id=name, verb="ping")
        bridge.publish(cmd_topic(rae, "rae", "op-eve"), encode(request), qos=1, retain=retain)

    def answered() -> set[str]:
        return {json.loads(one.payload)["id"] for one in heard if "/rsp/" in one.topic}

    async with engine(mosquitto, tmp_path, rae) as one:
        await until(lambda: one.uplink.connected, "connected")
        ask("retained", retain=True)
        ask("plain")
        await until(lambda: "plain" in answered(), "answered")
        client = one.uplink._client
        assert isinstance(client, MqttClient)
        client.abort()
        await until(lambda: one.uplink.connected and one.uplink._client is not client, "another connection")
        ask("later")
        await until(lambda: "later" in answered(), "answered later")
        await one.drain(0.1)
    assert answered() == {"plain", "later"}
    await bridge.disconnect()
