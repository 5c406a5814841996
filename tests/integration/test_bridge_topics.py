"""Topics that are not there yet, or not as they were."""

import asyncio
import json
import time
import uuid

import pytest
from confluent_kafka.admin import AdminClient

from dmpd.bridge.settings import BridgeSettings
from dmpd.model.topics import partition_of
from dmpd.runtime.health import fetch
from dmpd.runtime.settings import TopicSettings
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.kafka_read import read_all
from tests.support.ledger import Publisher, problems
from tests.support.services import public_folder, start_mosquitto

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(240)]

WAIT_S = 90.0


async def until(condition, what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline_s, f"not in {WAIT_S:g} s: {what}"
        await asyncio.sleep(0.1)


@pytest.fixture
def broker():
    with public_folder() as folder, start_mosquitto(folder) as service:
        yield service


def test_a_missing_topic_is_waited_for_and_one_made_anew_with_fewer_partitions_is_filled(
    kafka, broker, tmp_path
) -> None:
    names = {name: kafka.unique(name) for name in ("info", "rsp", "info_dead", "cmd")}
    health = f"unix:{tmp_path}/health.sock"
    sections = Sections(
        bridge=BridgeSettings(health_bind=health, retry_first_s=0.1, retry_max_s=1.0),
        kafka=kafka.settings,
        mqtt=broker.settings("svc-bridge"),
        topics=TopicSettings(**names, partitions=3),
    )
    bridge = BridgeProcess(sections, tmp_path / "bridge.log")
    tag = uuid.uuid4().hex[:6]
    # Of the second the partition of before is not there any more.
    first, second = [rae for rae in (f"T{tag}-{number}" for number in range(99)) if partition_of(rae, 3) > 0][:2]

    def status() -> dict[str, object]:
        try:
            return json.loads(fetch(health, "/status")[1])
        except OSError:
            return {}

    async def carried(rae: str) -> Publisher:
        publisher = Publisher(rae, broker.settings(rae), rows=60)
        await asyncio.wait_for(publisher.run(), WAIT_S)
        return publisher

    async def scenario() -> None:
        for name in names.values():  # the downlink's comes last: without it nothing shall seem ready either
            missing = f"topic {name}: Broker: Unknown topic or partition (dmpd migrate creates it)"
            await until(lambda missing=missing: missing in str(status().get("problem")), f"{missing!r} is its problem")
            await asyncio.to_thread(kafka.create_topic, name, partitions=3)
        await until(lambda: status().get("state") == "ready", "ready")
        await carried(first)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        await asyncio.to_thread(admin.delete_topics([names["info"]])[names["info"]].result, 20)
        late = asyncio.create_task(carried(second))
        await until(lambda: status().get("state") == "degraded", "it says that the topic is gone")
        await asyncio.to_thread(kafka.create_topic, names["info"], partitions=1)
        publisher = await late
        records = await asyncio.to_thread(read_all, kafka.bootstrap_servers, names["info"], 1)
        own = [(one.key(), one.value()) for one in records if second.encode() in one.key()]
        assert problems([publisher], own) == []

    bridge.start()
    try:
        asyncio.run(scenario())
    finally:
        bridge.stop()
