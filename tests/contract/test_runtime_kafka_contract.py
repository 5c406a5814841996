"""What dmpd needs of a Kafka producer: the twin and the real one pass the same tests."""

import time
from collections.abc import Callable

import pytest

from dmpd.runtime.kafka import Producer, ProducerQueueFullError, is_record_fault
from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer, StoredRecord
from dmpd.runtime.kafka_reader import TopicReader

DEADLINE_S = 60.0


class TwinBench:
    def __init__(self) -> None:
        self._kafka = MemoryKafka()

    def topic(self, partitions: int) -> str:
        self._kafka.create_topic("t", partitions=partitions)
        return "t"

    def producer(self, *, queue_records_max: int = 1000) -> MemoryProducer:
        return MemoryProducer(self._kafka, queue_records_max=queue_records_max)

    def stored(self, topic: str, count: int) -> list[tuple[int, StoredRecord]]:
        topics = enumerate(self._kafka.topics[topic])
        found = [(number, one._replace(timestamp_ms=-1)) for number, records in topics for one in records]
        assert len(found) == count
        return found


class RealBench:
    def __init__(self, service) -> None:
        self._service = service

    def topic(self, partitions: int) -> str:
        return self._service.create_topic(partitions=partitions)

    def producer(self, *, queue_records_max: int = 1000) -> Producer:
        return Producer(self._service.settings, "test", queue_buffering_max_messages=queue_records_max)

    def stored(self, topic: str, count: int) -> list[tuple[int, StoredRecord]]:
        reader = TopicReader(self._service.settings, topic, start="beginning")
        found = []
        deadline_s = time.monotonic() + DEADLINE_S
        while len(found) < count:
            assert time.monotonic() < deadline_s, f"{len(found)} of {count} records"
            found += reader.read(0.2, 1000)
        assert reader.read(0.3, 1000) == []
        reader.close()
        return sorted(
            ((one.partition, StoredRecord(one.key, one.value, tuple(one.headers))) for one in found), key=at_0
        )


def at_0(pair: tuple[int, StoredRecord]) -> int:
    return pair[0]


@pytest.fixture(params=["twin", pytest.param("kafka", marks=pytest.mark.services)])
def bench(request):
    return TwinBench() if request.param == "twin" else RealBench(request.getfixturevalue("kafka"))


def until(condition: Callable[[], object], producer) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "no delivery report"
        producer.poll(0.05)


def test_reports_come_in_poll_and_records_keep_order_partition_and_bytes(bench):
    topic, producer, reports = bench.topic(3), bench.producer(), []
    headers = [("mqtt-retain", b"1"), ("mqtt-user-x", b"\xff\x00"), ("mqtt-user-x", b"again")]
    for n in range(30):
        producer.produce(
            topic, key=b"key", value=b"%d" % n, headers=headers, partition=n % 3, on_delivery=reports.append
        )
    assert reports == []
    until(lambda: len(reports) == 30, producer)
    assert set(reports) == {None}
    stored = bench.stored(topic, 30)
    for number in range(3):
        assert [one.value for at, one in stored if at == number] == [b"%d" % n for n in range(number, 30, 3)]
    assert {(one.key, one.headers) for _, one in stored} == {(b"key", tuple(headers))}


def test_null_is_not_empty(bench):
    topic, producer, reports = bench.topic(1), bench.producer(), []
    contents = [(None, b""), (b"", None), (None, None)]
    for key, value in contents:
        producer.produce(topic, key=key, value=value, partition=0, on_delivery=reports.append)
    until(lambda: reports == [None] * 3, producer)
    assert [(one.key, one.value) for _, one in bench.stored(topic, 3)] == contents


def test_without_a_partition_a_key_has_one(bench):
    topic, producer, reports = bench.topic(4), bench.producer(), []
    for n in range(40):
        producer.produce(topic, key=b"key %d" % (n % 5), value=b"x", on_delivery=reports.append)
    assert producer.flush(DEADLINE_S) == 0
    stored = bench.stored(topic, 40)
    assert len({(one.key, at) for at, one in stored}) == 5


def test_full_queue_takes_nothing_and_says_so(bench):
    topic, producer, reports = bench.topic(1), bench.producer(queue_records_max=5), []
    for n in range(5):
        producer.produce(topic, key=b"k", value=b"%d" % n, on_delivery=reports.append)
    with pytest.raises(ProducerQueueFullError):
        producer.produce(topic, key=b"k", value=b"one too many", on_delivery=reports.append)
    until(lambda: len(reports) == 5, producer)
    producer.produce(topic, key=b"k", value=b"5", on_delivery=reports.append)
    assert producer.flush(DEADLINE_S) == 0
    assert [one.value for _, one in bench.stored(topic, 6)] == [b"%d" % n for n in range(6)]


def test_too_large_a_record_is_its_own_fault_and_costs_no_other(bench):
    topic, producer, large, good = bench.topic(1), bench.producer(), [], []
    producer.produce(topic, key=b"k", value=b"x" * 3_000_000, on_delivery=large.append)
    producer.produce(topic, key=b"k", value=b"small", on_delivery=good.append)
    until(lambda: large and good, producer)
    assert is_record_fault(large[0])
    assert good == [None]
    assert not is_record_fault("Local: Broker transport failure")
    assert [one.value for _, one in bench.stored(topic, 1)] == [b"small"]


def test_closing_reports_nothing_more(bench):
    topic, producer, reports = bench.topic(1), bench.producer(), []
    producer.produce(topic, key=b"k", value=b"x", on_delivery=reports.append)
    producer.close()
    producer.poll(0.5)
    assert reports == []


def test_unknown_partition_is_reported_and_is_not_the_records_fault(bench):
    topic, producer, reports = bench.topic(1), bench.producer(), []
    producer.produce(topic, key=b"k", value=b"x", partition=7, on_delivery=reports.append)
    until(lambda: reports, producer)
    assert reports[0] is not None
    assert "partition" in reports[0]
    assert not is_record_fault(reports[0])


def test_a_twin_reports_the_topic_that_refuses_and_stores_the_other():
    kafka, reports = MemoryKafka(), []
    kafka.create_topic("a")
    kafka.create_topic("b")
    kafka.refused["a"] = "not authorized"
    producer = MemoryProducer(kafka)
    for topic in "ab":
        producer.produce(topic, key=b"k", value=b"x", on_delivery=reports.append)
    assert producer.flush(1.0) == 0
    assert reports == ["not authorized", None]
    assert (len(kafka.topics["a"][0]), len(kafka.topics["b"][0])) == (0, 1)


def test_a_twin_that_is_down_keeps_records_until_it_is_up():
    kafka, reports = MemoryKafka(), []
    kafka.create_topic("t")
    producer = MemoryProducer(kafka)
    kafka.up = False
    producer.produce("t", key=b"k", value=b"x", on_delivery=reports.append)
    assert producer.poll(0.01) == 0
    assert producer.flush(0.01) == 1
    kafka.up = True
    assert producer.flush(1.0) == 0
    assert reports == [None]
    producer.fatal = "fenced"
    producer.produce("t", key=b"k", value=b"y", on_delivery=reports.append)
    assert reports == [None, "fenced"]
