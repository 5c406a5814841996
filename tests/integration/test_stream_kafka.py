"""The stream on a real Kafka: what the mock cluster cannot be trusted for."""

import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support.services import public_folder, start_kafka
from tests.support.stream_daemon import StreamDaemon, wait_for
from tests.support.stream_handlers import handled

pytestmark = pytest.mark.services

PARTITIONS = 4


class Load:
    """A producer of numbered values, round over all partitions; remembers how many each got."""

    def __init__(self, bootstrap, topic):
        self._client = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 0})
        self._topic = topic
        self.counts = [0] * PARTITIONS

    def send(self, count, *, size=200):
        for n in range(count):
            partition = n % PARTITIONS
            self._client.produce(self._topic, str(self.counts[partition]).zfill(size), b"key", partition)
            self.counts[partition] += 1
            self._client.poll(0)

    def flush(self):
        assert self._client.flush(60) == 0


@pytest.fixture
def topics(kafka):
    name = kafka.create_topic(partitions=PARTITIONS)
    return name, kafka.create_topic(f"{name}-dead")


def daemon(folder, kafka, topics, **more):
    topic, dead = topics
    settings = {"topic": topic, "dead_letter_topic": dead, "group": topic, "session_timeout_s": 6.0} | more
    return StreamDaemon(folder, kafka.bootstrap_servers, **settings)


def committed(kafka, topics):
    client = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topics[0]})
    asked = [TopicPartition(topics[0], partition) for partition in range(PARTITIONS)]
    offsets = [one.offset for one in client.committed(asked, 10)]
    client.close()
    return offsets


def all_handled(folder, load):
    return all(set(handled(folder, n)) >= set(range(count)) for n, count in enumerate(load.counts))


def more_than(folder, counts):
    return all(len(handled(folder, n)) > count for n, count in enumerate(counts))


def goes_on_in_order(offsets):
    """Whether no offset was skipped: one that was not seen yet is always the next."""
    expected = 0
    for offset in offsets:
        if offset > expected:
            return False
        expected = max(expected, offset + 1)
    return True


def test_a_killed_parent_loses_nothing(tmp_path, kafka, topics):
    load = Load(kafka.bootstrap_servers, topics[0])
    for life in range(2):
        load.send(4000)
        counts = [len(handled(tmp_path, n)) for n in range(PARTITIONS)]
        with daemon(tmp_path, kafka, topics, name=f"life{life}", options={"slow_s": 0.05}) as stream:
            wait_for(lambda: more_than(tmp_path, counts), lambda: stream.log)  # noqa: B023 - called at once
            load.send(4000)
            stream.process.kill()
    with daemon(tmp_path, kafka, topics, name="last") as stream:
        load.flush()
        wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log, timeout_s=40)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert all(goes_on_in_order(handled(tmp_path, n)) for n in range(PARTITIONS))
    assert committed(kafka, topics) == load.counts


@pytest.mark.parametrize("linger_ms", [0, 1000])
def test_records_that_trickle_in_gather_for_as_long_as_is_set(tmp_path, kafka, topics, linger_ms):
    """One after the other, each acknowledged before the next; in bulk they come at once all the same."""
    load = Load(kafka.bootstrap_servers, topics[0])
    with daemon(tmp_path, kafka, topics, linger_ms=linger_ms) as stream:
        load.send(PARTITIONS)
        load.flush()
        wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log)
        before = sum(len(handled(tmp_path, n, "batches")) for n in range(PARTITIONS))
        began_s = time.monotonic()
        for _ in range(40):
            load.send(1)
            load.flush()
            if not linger_ms:
                wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log)
        wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log)
        batches = sum(len(handled(tmp_path, n, "batches")) for n in range(PARTITIONS)) - before
        if linger_ms:
            assert batches <= time.monotonic() - began_s + 3
        else:
            assert batches == 40
        load.send(PARTITIONS * 500, size=500)
        load.flush()
        wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log)


def test_instances_come_and_go_under_load(tmp_path, kafka, topics):
    load = Load(kafka.bootstrap_servers, topics[0])
    with daemon(tmp_path, kafka, topics) as one:
        wait_for(lambda: len(one.status["partitions"]) == PARTITIONS, lambda: one.log)
        load.send(4000)
        with daemon(tmp_path, kafka, topics, name="two") as two:
            wait_for(
                lambda: len(one.status["partitions"]) == 2 == len(two.status["partitions"]), lambda: one.log + two.log
            )
            load.send(4000)
            load.flush()
            wait_for(lambda: all_handled(tmp_path, load), lambda: one.log + two.log)
            two.terminate()
            assert two.exit_code() == 0, two.log
        wait_for(lambda: len(one.status["partitions"]) == PARTITIONS, lambda: one.log)
        with daemon(tmp_path, kafka, topics, name="three") as three:
            wait_for(lambda: len(three.status["partitions"]) == 2, lambda: one.log + three.log)
            load.send(4000)
            three.process.kill()
        load.flush()
        wait_for(lambda: len(one.status["partitions"]) == PARTITIONS, lambda: one.log)
        wait_for(lambda: all_handled(tmp_path, load), lambda: one.log)
        one.terminate()
        assert one.exit_code() == 0, one.log
    assert all(goes_on_in_order(handled(tmp_path, n)) for n in range(PARTITIONS))
    assert committed(kafka, topics) == load.counts


def test_full_rings_pause_and_drain_without_a_gap(tmp_path, kafka, topics):
    load = Load(kafka.bootstrap_servers, topics[0])
    (tmp_path / "block").touch()
    with daemon(tmp_path, kafka, topics, ring_bytes=1 << 18, max_record_bytes=1 << 14) as stream:
        load.send(12_000)
        load.flush()
        wait_for(
            lambda: [p["paused"] for p in stream.status["partitions"].values()] == [True] * PARTITIONS,
            lambda: stream.log,
        )
        wait_for(lambda: stream.status["partitions"]["0"]["lag"] == 3000, lambda: stream.status)
        (tmp_path / "block").unlink()
        wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log)
        stream.terminate()
        assert stream.exit_code() == 0, stream.log
    assert [handled(tmp_path, n) for n in range(PARTITIONS)] == [list(range(3000))] * PARTITIONS
    assert committed(kafka, topics) == [3000] * PARTITIONS


def test_kafka_killed_and_frozen(tmp_path):
    """A broker of its own: killed and started again, then frozen; a TERM while it is frozen keeps its deadline."""
    with public_folder() as folder, start_kafka(folder) as kafka:
        name = kafka.create_topic(partitions=PARTITIONS)
        topics = name, kafka.create_topic(f"{name}-dead")
        load = Load(kafka.bootstrap_servers, name)
        with daemon(tmp_path, kafka, topics, drain_timeout_s=3.0) as stream:
            load.send(2000)
            wait_for(lambda: len(handled(tmp_path, 0)) > 0, lambda: stream.log)
            kafka.process.kill()
            load.send(2000)
            kafka.process.start()
            load.flush()
            wait_for(lambda: all_handled(tmp_path, load), lambda: stream.log, timeout_s=60)
            wait_for(lambda: committed(kafka, topics) == load.counts, lambda: stream.log, timeout_s=60)
            kafka.process.freeze()
            try:
                stream.terminate()
                assert stream.exit_code(20) == 0, stream.log  # without its bound the client's close never ends
            finally:
                kafka.process.thaw()
        assert all(goes_on_in_order(handled(tmp_path, n)) for n in range(PARTITIONS))
