"""The bridge between a real Mosquitto and a real Kafka, with both ends and itself failing."""

import asyncio
import json
import random
import time
import uuid

import msgspec
import pytest

from dmpd.bridge.settings import BridgeSettings
from dmpd.model.topics import partition_of
from dmpd.runtime.health import fetch
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.settings import TopicSettings
from tests.support.aio import until
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.kafka_read import read_all
from tests.support.ledger import Publisher, problems
from tests.support.services import public_folder, start_kafka, start_mosquitto

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

PARTITIONS = 3
SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


@pytest.fixture
def own_mosquitto():
    with public_folder() as folder, start_mosquitto(folder) as service:
        yield service


@pytest.fixture
def topics(kafka):
    names = {name: kafka.create_topic(partitions=PARTITIONS) for name in ("info", "rsp", "cmd")}
    return TopicSettings(**names, info_dead=kafka.create_topic(), partitions=PARTITIONS)


@pytest.fixture
def bridge(kafka, own_mosquitto, topics, tmp_path):
    sections = Sections(
        bridge=BridgeSettings(health_bind=f"unix:{tmp_path}/health.sock", retry_first_s=0.1, retry_max_s=0.5),
        kafka=kafka.settings,
        mqtt=own_mosquitto.settings("svc-bridge"),
        topics=topics,
    )
    process = BridgeProcess(sections, tmp_path / "bridge.log")
    yield process
    process.stop()


async def publish(rae: str, mosquitto, seqs: range) -> None:
    """Publish these rows as ``rae`` does, and see that the bridge's session has them."""
    codes: list[int] = []
    client = await MqttClient.connect(
        mosquitto.settings(rae),
        client_id=rae,
        clean_start=True,
        session_expiry_s=0,
        will=None,
        on_message=lambda message: None,
        on_puback=lambda mid, code: codes.append(code),
        receive_maximum=10,
    )
    for seq in seqs:
        body = {"v": 1, "kind": "change", "rae": rae, "session": SESSION, "epoch": 7, "seq": seq, "rev": seq}
        client.publish(f"dmp/v1/{rae}/{SESSION}/info", json.dumps(body).encode(), qos=1)
    await until(lambda: len(codes) == len(seqs), "published")
    assert set(codes) == {0}, "the bridge's session is not there"
    await client.disconnect()


def test_nothing_is_lost_or_reordered_while_bridge_and_broker_are_killed(kafka, own_mosquitto, topics, bridge) -> None:
    raes = [f"T{uuid.uuid4().hex[:6]}-{number}" for number in range(5)]
    dice = random.Random(5)

    async def scenario() -> list[Publisher]:
        publishers = [Publisher(rae, own_mosquitto.settings(rae), rows=400) for rae in raes]
        bridge.start()
        tasks = [asyncio.create_task(publisher.run()) for publisher in publishers]
        faults = ["bridge", "broker", "both", "bridge", "broker"]
        for number, fault in enumerate(faults):
            mark = 2000 - 300 * (number + 1) + dice.randrange(-50, 50)
            left = lambda mark=mark: sum(publisher.unstored for publisher in publishers) <= mark  # noqa: E731 - a name for the wait
            await until(left, f"{mark} rows left before fault {number} ({fault})")
            if fault in ("bridge", "both"):
                bridge.kill()
            if fault in ("broker", "both"):
                await asyncio.to_thread(own_mosquitto.process.kill)
                await asyncio.to_thread(own_mosquitto.process.start)
            if fault in ("bridge", "both"):
                bridge.start()
        await until(lambda: all(task.done() for task in tasks), "every row durable")
        for task in tasks:
            task.result()
        return publishers

    publishers = asyncio.run(scenario())
    records = read_all(kafka.bootstrap_servers, topics.info, PARTITIONS)
    assert problems(publishers, [(record.key(), record.value()) for record in records]) == []
    rae_of = {record.key().split(b"/")[2].decode(): record.partition() for record in records}
    assert rae_of == {rae: partition_of(rae, PARTITIONS) for rae in raes}
    assert read_all(kafka.bootstrap_servers, topics.info_dead, 1) == []


def test_a_stop_leaves_the_session_and_the_next_bridge_goes_on(kafka, own_mosquitto, topics, bridge) -> None:
    rae = f"T{uuid.uuid4().hex[:6]}"

    def stored() -> list[int]:
        return [
            json.loads(record.value())["seq"] for record in read_all(kafka.bootstrap_servers, topics.info, PARTITIONS)
        ]

    bridge.start()
    asyncio.run(until(lambda: b"connected, session new" in bridge.log.read_bytes(), "connected"))
    asyncio.run(publish(rae, own_mosquitto, range(1, 4)))
    asyncio.run(until(lambda: stored() == [1, 2, 3], "in Kafka"))
    assert bridge.stop() == 0
    asyncio.run(publish(rae, own_mosquitto, range(4, 8)))
    bridge.start()
    asyncio.run(until(lambda: stored() == [1, 2, 3, 4, 5, 6, 7], "the rest in Kafka, once"))
    assert b"session resumed" in bridge.log.read_bytes()


def test_a_frozen_kafka_makes_the_bridge_leave_and_come_back_and_costs_nothing(own_mosquitto, tmp_path) -> None:
    rae = f"T{uuid.uuid4().hex[:6]}"
    with public_folder() as folder, start_kafka(folder) as own_kafka:
        topics = TopicSettings(
            info=own_kafka.create_topic(),
            rsp=own_kafka.create_topic(),
            cmd=own_kafka.create_topic(),
            info_dead=own_kafka.create_topic(),
        )
        health = f"unix:{tmp_path}/health.sock"
        sections = Sections(
            bridge=BridgeSettings(health_bind=health, in_flight_messages_max=16, retry_first_s=0.1),
            kafka=own_kafka.settings,
            mqtt=msgspec.structs.replace(own_mosquitto.settings("svc-bridge"), keepalive_s=5),
            topics=topics,
        )
        bridge = BridgeProcess(sections, tmp_path / "bridge.log")

        def status() -> dict[str, object]:
            try:
                return json.loads(fetch(health, "/status")[1])
            except OSError:
                return {}

        async def scenario() -> Publisher:
            publisher = Publisher(rae, own_mosquitto.settings(rae), rows=300)
            bridge.start()
            await until(lambda: status().get("state") == "ready", "ready")
            own_kafka.process.freeze()
            running = asyncio.create_task(publisher.run())
            await until(lambda: status().get("gate") == "paused", "paused", 10)
            await until(lambda: not status().get("connected", True), "left the broker", 10)
            await until(lambda: status().get("state") == "degraded", "degraded", 5)
            assert publisher.unstored == 300, "told durable without Kafka"
            own_kafka.process.thaw()
            await until(running.done, "all durable")
            running.result()
            return publisher

        try:
            publisher = asyncio.run(scenario())
            records = read_all(own_kafka.bootstrap_servers, topics.info, 1)
            assert problems([publisher], [(record.key(), record.value()) for record in records]) == []
            own_kafka.process.freeze()
            asyncio.run(publish(rae, own_mosquitto, range(1, 2)))
            asyncio.run(until(lambda: status().get("unacknowledged") == 1, "in flight"))
            began_s = time.monotonic()
            bridge.terminate()
            asyncio.run(until(lambda: status().get("state") == "draining", "draining", 5))
            assert bridge.stop() == 0
            assert time.monotonic() - began_s < 5, "the second TERM waits for Kafka"
        finally:
            own_kafka.process.thaw()
            bridge.stop()
