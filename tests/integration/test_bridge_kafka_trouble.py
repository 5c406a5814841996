"""What Kafka can do to the bridge's producer, each as its own case, with the real client on its mock cluster.

Always: nothing is acknowledged that Kafka does not have, nothing is lost, and of one device nothing passes what came
before it. The broker's session is the scripted one: what was not acknowledged it delivers again.
"""

import asyncio
import functools
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop
from confluent_kafka import Consumer, TopicPartition

from dmpd.bridge.daemon import make_producer
from dmpd.bridge.settings import BridgeSettings
from dmpd.bridge.uplink import Uplink
from dmpd.runtime.kafka import Producer
from dmpd.runtime.settings import KafkaSettings, MqttSettings, TopicSettings
from tests.support.aio import until
from tests.support.bridge_twins import ScriptedBroker
from tests.support.mock_cluster import MockCluster

pytestmark = pytest.mark.timeout(120)

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
TOPIC = f"dmp/v1/A1/{SESSION}/info"
PRODUCE = 0
DISCONNECTED = -195
WAIT_S = 60.0
ROWS = 60

RETRIED = {
    "corrupt": 2,
    "unknown topic": 3,
    "no leader": 5,
    "leader moved": 6,
    "timed out": 7,
    "not enough replicas": 19,
    "not enough replicas after append": 20,
    "disk error": 56,
    "unknown producer": 59,
    "cut": DISCONNECTED,
}
REFUSED = {
    "topic authorization": 29,
    "cluster authorization": 31,
    "policy violation": 44,
    "out of sequence, fatal": 45,
    "old producer epoch": 47,
}
RECORD_FAULTS = {"too large": 10, "invalid record": 87}


def change(seq: int) -> bytes:
    body = {"v": 1, "kind": "change", "rae": "A1", "session": SESSION, "epoch": 7, "seq": seq, "rev": seq}
    return json.dumps(body).encode()


class Rig:
    """An uplink between the scripted broker and a mock cluster of two brokers."""

    def __init__(self, cluster: MockCluster) -> None:
        self.cluster = cluster
        self.broker = ScriptedBroker()
        self.producers: list[Producer] = []
        self.dead: list[int] = []
        """Rows among the dead letters, at the end."""
        self.topics = TopicSettings()
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap, options={"retry.backoff.ms": 50})
        settings = BridgeSettings(retry_first_s=0.05, retry_max_s=0.1)
        self._make = functools.partial(make_producer, settings, kafka, self.topics)
        self.uplink = Uplink(
            settings,
            mqtt=MqttSettings(),
            topics=self.topics,
            partitions={"dmp.info": 1, "dmp.rsp": 1},
            connect=self.broker.connect,
            make_producer=self._producer,
            random=lambda: 0.5,
        )

    def _producer(self, *, one_by_one: bool) -> Producer:
        self.producers.append(self._make(one_by_one=one_by_one))
        return self.producers[-1]

    @property
    def all_acknowledged(self) -> bool:
        return self.broker.connected and not self.broker.queued and not self.broker.unacked

    def log(self, topic: str = "dmp.info") -> list[int]:
        """The rows in Kafka, in order."""
        return [json.loads(value)["seq"] for value in read(self.cluster, topic)]


def read(cluster: MockCluster, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": uuid.uuid4().hex, "log_level": 2})
    try:
        place = TopicPartition(topic, 0, 0)
        end = consumer.get_watermark_offsets(place, timeout=10)[1]
        consumer.assign([place])
        values: list[bytes] = []
        while len(values) < end:
            message = consumer.poll(10.0)
            assert message is not None, f"{len(values)} of {end} read"
            assert message.error() is None
            values.append(message.value())
        return values
    finally:
        consumer.close()


@contextmanager
def cluster_of_two() -> Iterator[MockCluster]:
    cluster = MockCluster(2)
    for name in ("dmp.info", "dmp.rsp", "dmp.info.dead"):
        cluster.topic(name, 1, 2)
    yield cluster
    cluster.close()


def run(trouble: Callable[[Rig], None], heal: Callable[[Rig], None] = lambda rig: None, *, lasts_s: float = 0.0) -> Rig:
    """Rows flow in several batches at once while ``trouble`` comes; ends when all are acknowledged.

    ``lasts_s``: for so long a row has waited when ``heal`` comes.
    """

    async def scenario(cluster: MockCluster) -> Rig:
        rig = Rig(cluster)
        running = asyncio.create_task(rig.uplink.run())
        await until(lambda: rig.broker.connected, "connected")
        rig.broker.publish(TOPIC, change(1))
        await until(lambda: rig.all_acknowledged, "the first row")
        cluster.rtt(40)
        trouble(rig)
        for seq in range(2, ROWS + 1):
            rig.broker.publish(TOPIC, change(seq))
            if seq % 10 == 0:
                await asyncio.sleep(0.01)  # beyond the linger: another batch
        await until(lambda: rig.uplink.status()["puback_age_s"] >= lasts_s, "the trouble is felt")
        heal(rig)
        await until(lambda: rig.all_acknowledged, "all acknowledged")
        await until(lambda: rig.uplink.problem is None, "all well again")
        cluster.rtt(0)
        rows, rig.dead = rig.log(), rig.log("dmp.info.dead")
        firsts = list(dict.fromkeys(rows))
        assert sorted([*firsts, *rig.dead]) == list(range(1, ROWS + 1)), "lost, invented or in both topics"
        assert firsts == sorted(firsts), "a row passed one that came before it"
        await rig.uplink.drain(1.0)
        await asyncio.wait_for(running, WAIT_S)
        return rig

    with cluster_of_two() as cluster:
        return uvloop.run(scenario(cluster))


@pytest.mark.parametrize("code", RETRIED.values(), ids=RETRIED)
def test_what_passes_is_waited_out_by_one_producer(code) -> None:
    rig = run(lambda rig: rig.cluster.errors(PRODUCE, [0, code, code]))
    assert len(rig.producers) == 1
    assert len(rig.broker.connections) == 1


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_ends_the_producer_and_is_no_dead_letter(code) -> None:
    rig = run(lambda rig: rig.cluster.errors(PRODUCE, [0, code]))
    assert len(rig.producers) == 2
    assert rig.producers[0].fatal is not None
    assert rig.dead == []


@pytest.mark.parametrize("code", RECORD_FAULTS.values(), ids=RECORD_FAULTS)
def test_a_refused_batch_whose_records_pass_alone_costs_none(code) -> None:
    rig = run(lambda rig: rig.cluster.errors(PRODUCE, [0, code]))
    assert len(rig.producers) == 2
    assert rig.dead == []


def test_of_a_refused_batch_the_one_at_fault_becomes_a_dead_letter() -> None:
    def trouble(rig: Rig) -> None:
        rig.cluster.errors(PRODUCE, [0, RECORD_FAULTS["too large"]])
        make = rig._make

        def careful(*, one_by_one: bool) -> Producer:
            if one_by_one and len(rig.producers) == 1:
                rig.cluster.errors(PRODUCE, [0, 0, 0, RECORD_FAULTS["too large"]])
            return make(one_by_one=one_by_one)

        rig._make = careful

    rig = run(trouble)
    assert len(rig.dead) == 1
    assert len(rig.producers) >= 3


def test_down_for_a_while() -> None:
    rig = run(lambda rig: rig.cluster.down(), lambda rig: rig.cluster.up(), lasts_s=1.0)
    assert len(rig.producers) == 1


def test_slow() -> None:
    rig = run(lambda rig: rig.cluster.rtt(1500), lambda rig: rig.cluster.rtt(20), lasts_s=1.0)
    assert len(rig.producers) == 1


def test_the_leader_changes_to_and_fro() -> None:
    rig = run(
        lambda rig: rig.cluster.leader("dmp.info", 0, 2),
        lambda rig: rig.cluster.leader("dmp.info", 0, 1),
    )
    assert len(rig.producers) == 1
