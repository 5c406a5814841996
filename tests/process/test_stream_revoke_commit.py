"""The commit at a revoke is answered inside the callback, tried again while a rebalance refuses it, and bounded."""

import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from dmpd.runtime.settings import KafkaSettings
from dmpd.stream.consumer import StreamConsumer
from dmpd.stream.settings import StreamSettings
from tests.support.mock_cluster import MockCluster
from tests.support.stream_daemon import wait_for

TOPIC = "t"
REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION = 27, 22
OFFSET_COMMIT = 8
LATE_S = 10.0
SESSION_S = 20.0
"""Nobody is to be evicted while the callback holds on, also on a machine that is busy."""


class Owner:
    """Commits 7 when it is to give up its partition, as the parent does."""

    def __init__(self, cluster, *, timeout_s, before_commit):
        settings = StreamSettings(topic=TOPIC, group="g", session_timeout_s=SESSION_S)
        self.consumer = StreamConsumer(KafkaSettings(bootstrap_servers=cluster.bootstrap), settings, self)
        self.consumer.subscribe()
        self.assigned = []
        self.answers = []
        self._timeout_s = timeout_s
        self._before_commit = before_commit

    def on_assigned(self, next_offsets):
        self.assigned.extend(next_offsets)

    def on_revoked(self, partitions):
        self._before_commit()
        began_s = time.monotonic()
        is_taken = self.consumer.commit_confirmed(dict.fromkeys(partitions, 7), self._timeout_s)
        self.answers.append((is_taken, time.monotonic() - began_s))

    def on_lost(self, partitions):
        raise AssertionError

    def on_committed(self, taken, *, asked):
        return


@pytest.fixture
def cluster():
    cluster = MockCluster()
    cluster.topic(TOPIC, 2)
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce(TOPIC, b"v", partition=0)
    assert producer.flush(10) == 0
    yield cluster
    cluster.close()


def revoke(cluster, *, timeout_s, before_commit):
    """The only member leaves. Returns whether the commit was taken, and how long that took to know.

    Nobody joins: the mock cluster, unlike a broker, refuses commits in all phases of a rebalance, and begins another
    one when members are not in step. What a commit meets in a rebalance is injected instead.
    """
    owner = Owner(cluster, timeout_s=timeout_s, before_commit=before_commit)
    wait_for(lambda: owner.consumer.poll(0.1) is not None and owner.assigned, "an assignment")
    owner.consumer._client.unsubscribe()
    wait_for(lambda: owner.consumer.poll(0.05) is not None or owner.answers, "a revoke")
    owner.consumer.abandon()
    [answer] = owner.answers
    return answer


def committed(cluster):
    client = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "g"})
    found = client.committed([TopicPartition(TOPIC, n) for n in range(2)], 10)
    client.close()
    return max(one.offset for one in found)


def test_it_is_known_to_be_taken(cluster):
    is_taken, _ = revoke(cluster, timeout_s=LATE_S, before_commit=lambda: None)
    assert is_taken
    assert committed(cluster) == 7


def test_it_is_tried_again_while_a_rebalance_refuses_it(cluster):
    refusals = [REBALANCE_IN_PROGRESS] * 3
    is_taken, _ = revoke(cluster, timeout_s=LATE_S, before_commit=lambda: cluster.errors(OFFSET_COMMIT, refusals))
    assert is_taken
    assert committed(cluster) == 7


def test_one_that_is_refused_to_the_end_ends_at_its_bound(cluster):
    refusals = [ILLEGAL_GENERATION] * 1000
    is_taken, took_s = revoke(cluster, timeout_s=0.5, before_commit=lambda: cluster.errors(OFFSET_COMMIT, refusals))
    assert not is_taken
    assert took_s < LATE_S
    assert committed(cluster) < 0


def test_with_a_dead_broker_it_ends_at_its_bound(cluster):
    is_taken, took_s = revoke(cluster, timeout_s=0.5, before_commit=cluster.down)
    cluster.up()
    assert not is_taken
    assert took_s < LATE_S
