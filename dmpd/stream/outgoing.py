"""What the parent produces: dead letters and records that handlers emit. Each holds its partition's frontier meanwhile.

A dead letter is only a position until the producer has room for it: the ring keeps the record, since space is freed up
to the frontier. Nothing is given up: what Kafka refuses is tried again, a dead letter that is too large without its
value.
"""

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import KafkaException

from dmpd.runtime.kafka import ProducerQueueFullError, RecordProducer, is_too_large
from dmpd.stream import metrics
from dmpd.stream.channel import Emit
from dmpd.stream.dead_letters import Origin, OutgoingRecord, Verdict, dead_letter
from dmpd.stream.frames import Position
from dmpd.stream.handler import Record
from dmpd.stream.partition import OversizedRecord, Partition
from dmpd.stream.ring import RingCorruptedError
from dmpd.stream.source_limits import SourceLimits, SourceOf, Sources, whole_key

_log = logging.getLogger(__name__)
_RETRY_AFTER_S: Final = 1.0
_IN_FLIGHT_MAX: Final = 1000
BACKLOG_MAX: Final = 10_000
"""Emitted records are held in memory: beyond this the workers' channels are not read until there is room."""


class _Item:
    """One record on its way."""

    def __init__(
        self, partition: Partition, ticket: int, *, render: Callable[[bool], OutgoingRecord], done: Callable[[], None]
    ) -> None:
        self.partition = partition
        self.ticket = ticket
        self.render = render
        self.done = done
        self.was_refused = False
        self.is_too_large = False
        self.retry_at_s = 0.0


class OutgoingRecords:
    """A queue before the producer. Called from the parent's thread; deliveries are reported inside ``pump``."""

    def __init__(
        self,
        producer: RecordProducer,
        *,
        topic: str,
        dead_letter_topic: str,
        letters_per_minute: int = 1000,
        source_of: SourceOf = whole_key,
    ) -> None:
        """``letters_per_minute``: most dead letters of one source (``source_of`` its key), apart from skipped ones."""
        self._sources = Sources(source_of)
        self._limits = SourceLimits(per_minute=letters_per_minute)
        self._now_s = 0.0
        self._producer = producer
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic
        self._waiting: deque[_Item] = deque()
        self._in_flight = 0

    @property
    def backlog(self) -> int:
        return len(self._waiting) + self._in_flight

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the broker that workers are not to be heard."""
        return self.backlog > BACKLOG_MAX

    def wait(self, timeout_s: float) -> None:
        """Take delivery reports; wait for the first up to ``timeout_s``."""
        self._producer.poll(timeout_s)

    @property
    def fatal(self) -> str | None:
        """Why the producer can never deliver again; None = it can."""
        return self._producer.fatal

    def give_up(
        self, partition: Partition, position: Position, *, reason: str, detail: str, by: str = "handler"
    ) -> None:
        """The record there was judged, by the handler or for what it does to it. Raises ``PositionError``."""
        ticket = partition.judge(position)
        if ticket is None:
            return
        source = self._source_at(partition, position)
        partition.standstill.judged(partition.ledger.ordinal_at(position), source)
        if self._limits.keeps(source, self._now_s):
            verdict = Verdict(reason, detail, by)
            self._add_dead_letter(partition, ticket, lambda: partition.record_at(position), verdict)
        else:
            metrics.DEAD_LETTERS_DROPPED.labels(reason).inc()
            partition.ledger.end_hold(ticket)

    def skip(self, partition: Partition, position: Position) -> None:
        """An operator gives up the record there, bad or not. Raises ``PositionError``."""
        ticket = partition.judge(position)
        if ticket is not None:
            verdict = Verdict("skipped", "the partition was halted", "operator")
            self._add_dead_letter(partition, ticket, lambda: partition.record_at(position), verdict)

    def give_up_oversized(self, partition: Partition, oversized: OversizedRecord, *, limit_bytes: int) -> None:
        detail = f"{oversized.size_bytes} bytes, at most {limit_bytes}"

        def done() -> None:
            partition.held_bytes -= oversized.size_bytes

        source = self._sources.name(oversized.record.key)
        partition.standstill.judged(oversized.ordinal, source, ahead=True)
        if self._limits.keeps(source, self._now_s):
            verdict = Verdict("oversized", detail, "stream")
            self._add_dead_letter(partition, oversized.ticket, lambda: oversized.record, verdict, done)
        else:
            metrics.DEAD_LETTERS_DROPPED.labels("oversized").inc()
            done()
            partition.ledger.end_hold(oversized.ticket)

    def emit(self, partition: Partition, message: Emit) -> None:
        """Produce it; nothing that is released after this call is committed before it is delivered."""
        record = OutgoingRecord(message.topic, message.key, message.value)
        ticket = partition.ledger.hold()
        self._waiting.append(_Item(partition, ticket, render=lambda _: record, done=metrics.EMITTED.inc))

    def pump(self, now_s: float) -> None:
        """Hand on what the producer takes and take delivery reports. Does not block."""
        self._now_s = now_s
        self._tell_dropped()
        for _ in range(len(self._waiting)):
            if self._in_flight >= _IN_FLIGHT_MAX:
                break
            item = self._waiting[0]
            if item.retry_at_s > now_s:
                self._waiting.rotate(-1)
                continue
            if not item.partition.closed and not self._produce(item, now_s):
                break
            self._waiting.popleft()
        self._producer.poll(0)

    def _source_at(self, partition: Partition, position: Position) -> bytes:
        try:
            return self._sources.name(partition.record_at(position).key)
        except RingCorruptedError:  # it shows again, and is dealt with, when the letter is to be produced
            return b"(unreadable)"

    def _tell_dropped(self) -> None:
        dropped = self._limits.ended(self._now_s)
        if dropped is None:
            return
        named = ", ".join(f"{one.dropped} of {one.source}" for one in dropped.worst)
        more = f" and {dropped.more_sources} more sources" if dropped.more_sources else ""
        _log.warning("%d dead letters of the last minute were not kept: %s%s", dropped.letters, named, more)

    def _add_dead_letter(
        self,
        partition: Partition,
        ticket: int,
        read: Callable[[], Record],
        verdict: Verdict,
        also_done: Callable[[], None] | None = None,
    ) -> None:
        judged_at = datetime.now(UTC)
        origin = Origin(self._topic, partition.number)

        def render(truncated: bool) -> OutgoingRecord:  # noqa: FBT001 - one meaning, next to its only caller
            return dead_letter(
                read(), verdict, origin, topic=self._dead_letter_topic, at=judged_at, truncated=truncated
            )

        def done() -> None:
            metrics.DEAD_LETTERS.labels(verdict.reason).inc()
            if also_done is not None:
                also_done()

        self._waiting.append(_Item(partition, ticket, render=render, done=done))

    def _produce(self, item: _Item, now_s: float) -> bool:
        record = item.render(item.is_too_large)

        def on_delivery(refusal: str | None) -> None:
            self._in_flight -= 1
            if refusal is None:
                item.done()
                item.partition.ledger.end_hold(item.ticket)
            else:
                self._try_again(item, record.topic, refusal, now_s)

        try:
            self._producer.produce(
                record.topic, key=record.key, value=record.value, headers=record.headers, on_delivery=on_delivery
            )
        except ProducerQueueFullError:
            return False
        except KafkaException as error:  # the client itself finds it too large, or the topic's name wrong
            self._try_again(item, record.topic, str(error.args[0].str()), now_s)
            return True
        self._in_flight += 1
        return True

    def _try_again(self, item: _Item, topic: str, refusal: str, now_s: float) -> None:
        metrics.PRODUCE_FAILURES.inc()
        _log.warning("partition %d: %s refused a record: %s; trying again", item.partition.number, topic, refusal)
        item.retry_at_s = now_s + _RETRY_AFTER_S if item.was_refused else 0.0
        item.was_refused = True
        item.is_too_large = item.is_too_large or is_too_large(refusal)
        self._waiting.append(item)
