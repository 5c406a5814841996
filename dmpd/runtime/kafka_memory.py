"""The in-memory twin of a Kafka cluster and of its producer, under the same contract tests."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from dmpd.model.partitioner import murmur2
from dmpd.runtime.kafka import RECORD_TOO_LARGE, UNKNOWN_PARTITION, Headers, OnDelivery, ProducerQueueFullError
from dmpd.runtime.kafka_reader import ReadRecord

_POLL_S: Final = 0.001


class StoredRecord(NamedTuple):
    """What a consumer would get."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int = -1


class MemoryKafka:
    """Topics with their partitions. ``up`` = False: records are taken by producers and wait, as with a dead broker."""

    def __init__(self, *, record_bytes_max: int = 1_000_000) -> None:
        self.up = True
        self.record_bytes_max = record_bytes_max
        self.refused: dict[str, str] = {}
        """Topics whose records are not taken, each with the sentence of the delivery report."""
        self.topics: dict[str, list[list[StoredRecord]]] = {}
        self.positions: dict[tuple[str, str, int], int] = {}
        """By group, topic and partition: the next offset."""

    def create_topic(self, name: str, *, partitions: int = 1) -> None:
        self.topics[name] = [[] for _ in range(partitions)]


class _Queued(NamedTuple):
    topic: str
    partition: int | None
    record: StoredRecord
    on_delivery: OnDelivery


class MemoryProducer:
    """A ``RecordProducer`` that stores when it is polled, in the order of ``produce``. For one thread."""

    def __init__(self, kafka: MemoryKafka, *, queue_records_max: int = 500_000) -> None:
        self._kafka = kafka
        self._queue_records_max = queue_records_max
        self._queue: deque[_Queued] = deque()
        self.fatal: str | None = None

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
        on_delivery: OnDelivery,
    ) -> None:
        if self.fatal is not None:
            on_delivery(self.fatal)
            return
        if len(key or b"") + len(value or b"") > self._kafka.record_bytes_max:
            on_delivery(RECORD_TOO_LARGE)
            return
        if len(self._queue) >= self._queue_records_max:
            raise ProducerQueueFullError
        self._queue.append(_Queued(topic, partition, StoredRecord(key, value, tuple(headers)), on_delivery))

    def poll(self, timeout_s: float) -> int:
        deadline_s = time.monotonic() + timeout_s
        while not (self._queue and self._kafka.up):
            if time.monotonic() >= deadline_s:
                return 0
            time.sleep(_POLL_S)
        served = 0
        while self._queue and self._kafka.up:
            queued = self._queue.popleft()
            queued.on_delivery(self._store(queued))
            served += 1
        return served

    def _store(self, queued: _Queued) -> str | None:
        if queued.topic in self._kafka.refused:
            return self._kafka.refused[queued.topic]
        partitions = self._kafka.topics[queued.topic]
        number = queued.partition
        if number is None:
            number = (murmur2(queued.record.key or b"") & 0x7FFF_FFFF) % len(partitions)
        if number >= len(partitions):
            return UNKNOWN_PARTITION
        partitions[number].append(queued.record._replace(timestamp_ms=time.time_ns() // 1_000_000))
        return None

    def flush(self, timeout_s: float) -> int:
        deadline_s = time.monotonic() + timeout_s
        while self._queue and time.monotonic() < deadline_s:
            self.poll(max(0.0, deadline_s - time.monotonic()))
        return len(self._queue)

    def close(self) -> None:
        self._queue.clear()


class MemoryFollower:
    """A ``RecordFollower`` of a topic in memory."""

    def __init__(self, kafka: MemoryKafka, topic: str, *, group: str, since_ms: int | None = None) -> None:
        self._kafka = kafka
        self._topic = topic
        self._group = group
        self._next: list[int] = []
        for number, records in enumerate(kafka.topics[topic]):
            if since_ms is None:
                start = kafka.positions.get((group, topic, number), 0)
            else:
                start = next((at for at, one in enumerate(records) if one.timestamp_ms >= since_ms), len(records))
            self._next.append(start)
        self._ends = [len(records) for records in kafka.topics[topic]]

    @property
    def behind(self) -> frozenset[int]:
        return frozenset(number for number, end in enumerate(self._ends) if self._next[number] < end)

    def read(self, timeout_s: float, records_max: int) -> list[ReadRecord]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = self._take(records_max) if self._kafka.up else []
            if found or time.monotonic() >= deadline_s:
                return found
            time.sleep(_POLL_S)

    def _take(self, records_max: int) -> list[ReadRecord]:
        found: list[ReadRecord] = []
        for number, records in enumerate(self._kafka.topics[self._topic]):
            while self._next[number] < len(records) and len(found) < records_max:
                offset = self._next[number]
                one = records[offset]
                found.append(ReadRecord(self._topic, number, offset, one.timestamp_ms, one.key, one.value, one.headers))
                self._next[number] += 1
        return found

    def commit(self, positions: Mapping[int, int]) -> None:
        for number, offset in positions.items():
            self._kafka.positions[self._group, self._topic, number] = offset

    def close(self) -> None:
        """Nothing to free."""
