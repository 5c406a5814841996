"""The uplink on HiveMQ CE, which enforces Receive Maximum by hanging up and keeps its sessions through a kill -9."""

import asyncio
import time
import uuid

import pytest

from dmpd.bridge.settings import BridgeSettings
from dmpd.runtime.settings import TopicSettings
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.hivemq import start_hivemq
from tests.support.kafka_read import read_all
from tests.support.ledger import Publisher, problems
from tests.support.services import public_folder

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

PARTITIONS = 3
WAIT_S = 120.0


async def until(condition, what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {WAIT_S:g} s: {what}"
        await asyncio.sleep(0.05)


def test_nothing_is_lost_or_reordered_while_bridge_and_broker_are_killed(kafka, tmp_path) -> None:
    names = {name: kafka.create_topic(partitions=PARTITIONS) for name in ("info", "rsp", "cmd")}
    topics = TopicSettings(**names, info_dead=kafka.create_topic(), partitions=PARTITIONS)
    with public_folder() as folder, start_hivemq(folder) as broker:
        sections = Sections(
            bridge=BridgeSettings(health_bind=f"unix:{tmp_path}/health.sock", retry_first_s=0.2, retry_max_s=1.0),
            kafka=kafka.settings,
            mqtt=broker.settings("svc-bridge"),
            topics=topics,
        )
        bridge = BridgeProcess(sections, tmp_path / "bridge.log")
        tag = uuid.uuid4().hex[:6]
        raes = [f"T{tag}-{number}" for number in range(4)]
        publishers = [Publisher(rae, broker.settings(rae), rows=250) for rae in raes]

        async def scenario() -> None:
            unstored = lambda: sum(publisher.unstored for publisher in publishers)  # noqa: E731 - a name for the wait
            await until(lambda: b"connected, session new" in bridge.log.read_bytes(), "bridge connected")
            sending = [asyncio.create_task(publisher.run()) for publisher in publishers]
            await until(lambda: unstored() <= 700, "a part is durable")
            bridge.kill()
            bridge.start()
            await until(lambda: unstored() <= 400, "more is durable")
            await asyncio.to_thread(broker.process.kill)
            await asyncio.to_thread(broker.process.start)
            await until(lambda: all(task.done() for task in sending), "every row durable")
            for task in sending:
                task.result()

        bridge.start()
        try:
            asyncio.run(scenario())
        finally:
            bridge.stop()
        assert bridge.log.read_bytes().count(b"session resumed") >= 2, "the broker forgot the session"
        assert b"Receive maximum exceeded" not in bridge.log.read_bytes()
    records = read_all(kafka.bootstrap_servers, topics.info, PARTITIONS)
    assert problems(publishers, [(one.key(), one.value()) for one in records]) == []
    assert read_all(kafka.bootstrap_servers, topics.info_dead, 1) == []
