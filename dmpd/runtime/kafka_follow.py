"""Follows a topic with all its partitions and no group membership: for the one process that works on the whole topic.

Where it stands is kept in Kafka under a group's name, so that a restart goes on there at once: there is no session to
time out and no rebalance. Two of them at once would both get everything; keeping the second away is the caller's.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from dmpd.runtime.kafka import KafkaUnreachableError, making_client
from dmpd.runtime.kafka_committed import committed
from dmpd.runtime.kafka_reader import ReadRecord, close_unanswered, reader_config, record_of
from dmpd.runtime.settings import KafkaSettings

_GROWTH_CHECK_S: Final = 30.0
_TIMEOUT_S: Final = 10.0

_log = logging.getLogger(__name__)


class RecordFollower(Protocol):
    """What the bridge needs of it; ``kafka_memory`` has the twin. For one thread at a time; every call may block."""

    @property
    def behind(self) -> frozenset[int]:
        """Partitions of which something that they held at the opening was not read yet."""

    def read(self, timeout_s: float, records_max: int) -> list[ReadRecord]:
        """Up to ``records_max`` records; waits up to ``timeout_s`` for the first. Empty also while Kafka is away."""

    def commit(self, positions: Mapping[int, int]) -> None:
        """Keep the next offset of partitions, without waiting for it; a later one may be kept in its place."""

    def close(self) -> None:
        """Let go; waits a moment for commits under way."""


class Follower:
    """A ``RecordFollower`` of a real topic.

    Args:
        settings: How to reach Kafka.
        topic: Must exist.
        group: The name under which positions are kept; "" = none are, and ``since_ms`` counts.
        since_ms: Begin with records of that time (by their timestamps); None = where the group stands, at the beginning
            if nowhere.

    Raises:
        KafkaUnreachableError, KafkaRefusedError: From the constructor, which blocks up to some 10 s.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, group: str, since_ms: int | None = None) -> None:
        self._topic = topic
        self._group = group
        config = reader_config(settings) | {"group.id": group or "dmpd-reader", "on_commit": self._committed}
        with making_client(settings):
            self._consumer: Any = confluent_kafka.Consumer(config)
        try:
            self._ends = self._open(since_ms)
        except KafkaException as error:
            close_unanswered(self._consumer, config, settings)
            message = f"{settings.bootstrap_servers}: topic {topic}: {error.args[0].str()}"
            raise KafkaUnreachableError(message) from error
        self._growth_checked_s = time.monotonic()
        self._logged_s: dict[int, float] = {}

    @property
    def behind(self) -> frozenset[int]:
        return frozenset(self._ends)

    def read(self, timeout_s: float, records_max: int) -> list[ReadRecord]:
        self._check_growth()
        messages = self._consumer.consume(1, timeout_s)
        if messages and records_max > 1:
            messages += self._consumer.consume(records_max - 1, 0)
        records = []
        for message in messages:
            if message.error() is not None:
                self._trouble(message.error())
                continue
            record = record_of(message)
            records.append(record)
            if record.offset + 1 >= self._ends.get(record.partition, 0):
                self._ends.pop(record.partition, None)
        if self._ends:
            self._skip_unreadable()
        return records

    def commit(self, positions: Mapping[int, int]) -> None:
        assert self._group
        offsets = [TopicPartition(self._topic, number, offset) for number, offset in positions.items()]
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        self._consumer.close()

    def _open(self, since_ms: int | None) -> dict[int, int]:
        """Assign all partitions; returns where each one ended, of those that have something to read."""
        numbers = self._partitions()
        self.partitions = len(numbers)
        ends = {}
        starts = self._starts(numbers, since_ms)
        for number, start in list(starts.items()):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), _TIMEOUT_S)
            starts[number] = position = max(low, min(start, high)) if start >= 0 else low
            if position < high:
                ends[number] = high
        self._consumer.assign([TopicPartition(self._topic, number, start) for number, start in starts.items()])
        return ends

    def _starts(self, numbers: Sequence[int], since_ms: int | None) -> dict[int, int]:
        if since_ms is None:
            asked = [TopicPartition(self._topic, number) for number in numbers]
            found = committed(self._consumer, asked, _TIMEOUT_S)
        else:
            asked = [TopicPartition(self._topic, number, since_ms) for number in numbers]
            found = self._consumer.offsets_for_times(asked, _TIMEOUT_S)
        for one in found:
            if one.error is not None:
                raise KafkaException(one.error)
        # Negative: never committed, or no record is that young.
        unknown = OFFSET_BEGINNING if since_ms is None else 1 << 62
        return {one.partition: one.offset if one.offset >= 0 else unknown for one in found}

    def _partitions(self) -> list[int]:
        found = self._consumer.list_topics(self._topic, timeout=_TIMEOUT_S).topics[self._topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def _skip_unreadable(self) -> None:
        """Ends may lie behind what is no record (of a transaction), or was deleted: the client's position tells."""
        asked = [TopicPartition(self._topic, number) for number in self._ends]
        for one in self._consumer.position(asked):
            if one.offset >= self._ends[one.partition]:
                del self._ends[one.partition]

    def _check_growth(self) -> None:
        """Take in partitions that the topic got meanwhile, from their beginning."""
        now_s = time.monotonic()
        if now_s - self._growth_checked_s < _GROWTH_CHECK_S:
            return
        self._growth_checked_s = now_s
        known = {one.partition for one in self._consumer.assignment()}
        try:
            new = [number for number in self._partitions() if number not in known]
        except KafkaException as error:  # asked again in a while
            _log.debug("%s: partitions not listed: %s", self._topic, error)
            return
        if new:
            _log.info("%s has new partitions: %s", self._topic, new)
            added = [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in new]
            self._consumer.incremental_assign(added)

    def _committed(self, error: KafkaError | None, _: object) -> None:
        if error is not None:  # the next commit covers it
            self._trouble(error)

    def _trouble(self, error: KafkaError) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s.get(error.code(), -60.0) > 30.0:
            self._logged_s[error.code()] = now_s
            _log.warning("%s: %s", self._topic, error.str())
