"""What the bridge needs of a reader of a whole topic: the twin and the real one pass the same tests."""

import time
from collections.abc import Callable

import pytest

from dmpd.runtime.kafka import KafkaUnreachableError, Producer
from dmpd.runtime.kafka_follow import Follower
from dmpd.runtime.kafka_memory import MemoryFollower, MemoryKafka, MemoryProducer
from dmpd.runtime.kafka_reader import ReadRecord

DEADLINE_S = 60.0


class TwinBench:
    def __init__(self) -> None:
        self.kafka = MemoryKafka()
        self.kafka.create_topic("t", partitions=2)
        self.producer = MemoryProducer(self.kafka)

    def follower(self, *, group: str = "g", since_ms: int | None = None) -> MemoryFollower:
        return MemoryFollower(self.kafka, "t", group=group, since_ms=since_ms)

    def put(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self.producer.produce("t", key=b"k", value=value, partition=partition, on_delivery=lambda _: None)
        assert self.producer.flush(DEADLINE_S) == 0


class RealBench(TwinBench):
    def __init__(self, service) -> None:
        self._service = service
        self._topic = service.create_topic(partitions=2)
        self._producer = Producer(service.settings, "test")

    def follower(self, *, group: str = "g", since_ms: int | None = None) -> Follower:  # type: ignore[override]
        group = group and f"{group}-{self._topic}"
        return Follower(self._service.settings, self._topic, group=group, since_ms=since_ms)

    def put(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self._producer.produce(self._topic, key=b"k", value=value, partition=partition, on_delivery=lambda _: None)
        assert self._producer.flush(DEADLINE_S) == 0


@pytest.fixture(params=["twin", pytest.param("kafka", marks=pytest.mark.services)])
def bench(request):
    return TwinBench() if request.param == "twin" else RealBench(request.getfixturevalue("kafka"))


def read(follower, count: int) -> list[ReadRecord]:
    found: list[ReadRecord] = []
    until(lambda: found.extend(follower.read(0.2, 100)) or len(found) >= count, f"{count} records")
    assert len(found) == count
    return found


def until(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S:g} s: {what}"


def test_a_group_that_is_nowhere_begins_at_the_beginning_and_knows_when_it_has_caught_up(bench):
    bench.put(b"a", b"b")
    bench.put(b"c", partition=1)
    follower = bench.follower()
    assert follower.behind == {0, 1}
    assert sorted(one.value for one in read(follower, 3)) == [b"a", b"b", b"c"]
    assert follower.behind == frozenset()
    bench.put(b"d")
    (late,) = read(follower, 1)
    assert (late.value, late.offset, late.partition) == (b"d", 2, 0)
    assert late.timestamp_ms > 0
    assert follower.read(0.1, 10) == []
    follower.close()


def test_a_commit_is_where_the_next_one_goes_on(bench):
    bench.put(b"a", b"b", b"c")
    bench.put(b"x", partition=1)
    follower = bench.follower()
    read(follower, 4)
    follower.commit({0: 2})
    follower.close()
    again = bench.follower()
    assert again.behind == {0, 1}
    assert sorted(one.value for one in read(again, 2)) == [b"c", b"x"]
    again.close()


def test_from_a_time_on(bench):
    bench.put(b"old")
    time.sleep(0.05)  # timestamps are milliseconds
    since_ms = time.time_ns() // 1_000_000
    time.sleep(0.05)
    bench.put(b"new")
    follower = bench.follower(group="", since_ms=since_ms)
    assert [one.value for one in read(follower, 1)] == [b"new"]
    follower.close()
    later = bench.follower(group="", since_ms=since_ms + 3_600_000)
    assert later.behind == frozenset()
    bench.put(b"newest")
    assert [one.value for one in read(later, 1)] == [b"newest"]
    later.close()


@pytest.mark.services
def test_a_topic_that_is_not_there_is_named(kafka):
    with pytest.raises(KafkaUnreachableError, match="nowhere-here"):
        Follower(kafka.settings, "nowhere-here", group="g")
