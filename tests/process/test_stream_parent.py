"""The parent with real workers on the mock cluster: the way of records, and every kind of end."""

import os
import signal

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support.mock_cluster import MockCluster
from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_handlers import handled

TOPIC = "t"
DEAD = "t.dead"


@pytest.fixture
def cluster():
    cluster = MockCluster()
    cluster.topic(TOPIC, 2)
    cluster.topic(DEAD, 1)
    yield cluster
    cluster.close()


@pytest.fixture
def producer(cluster):
    return Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1})


def produce(producer, values, *, partition=0, headers=None):
    for value in values:
        producer.produce(TOPIC, value, b"key", partition, headers=headers)
    assert producer.flush(10) == 0


def daemon(folder, cluster, **more):
    settings = {"topic": TOPIC, "dead_letter_topic": DEAD, "group": "g"} | more
    return StreamDaemon(folder, cluster.bootstrap, **settings)


def committed(cluster, partition):
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "g"})
    offset = client.committed([TopicPartition(TOPIC, partition)], 5)[0].offset
    client.close()
    return offset


def read_all(cluster, topic, count):
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader"})
    client.assign([TopicPartition(topic, 0, 0)])
    found = []
    wait_for(lambda: found.extend(client.consume(100, 0.1)) or len(found) >= count, lambda: f"{len(found)} of {count}")
    client.close()
    return found


def test_records_are_handled_in_order_and_committed(tmp_path, cluster, producer):
    produce(producer, [str(n) for n in range(3000)])
    produce(producer, [str(n) for n in range(500)], partition=1)
    with daemon(tmp_path, cluster) as stream:
        wait_for(lambda: len(handled(tmp_path, 0)) >= 3000 and len(handled(tmp_path, 1)) >= 500, lambda: stream.log)
        produce(producer, ["more"])
        wait_for(lambda: len(handled(tmp_path, 0)) >= 3001, lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert handled(tmp_path, 0) == list(range(3001))
    assert handled(tmp_path, 1) == list(range(500))
    assert (committed(cluster, 0), committed(cluster, 1)) == (3001, 500)
    assert (tmp_path / "0.closed").exists()
