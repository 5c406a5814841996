"""Kafka's consumer as the parent uses it: explicit start offsets, callbacks that are ours, no call without a bound.

One thread makes all calls; callbacks run inside ``poll``, ``consume`` and ``close``. Rebalances are incremental: what
stays with us is not revoked.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from dmpd.runtime import kafka as runtime_kafka
from dmpd.runtime.kafka import UNREADABLE_HEADERS
from dmpd.runtime.kafka_reader import headers_of
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import client_settings, metrics
from dmpd.stream.fetch_positions import FetchPositions
from dmpd.stream.frames import Frame, Offsets
from dmpd.stream.settings import StreamSettings

_log = logging.getLogger(__name__)
_COMMITTED_TIMEOUT_S: Final = 10.0
_COMMITTED_ATTEMPTS: Final = 3
_WAKE_TIMEOUT_S: Final = 0.1
_STATISTICS_EVERY_S: Final = 5.0
_COMMIT_AGAIN_S: Final = 0.05
_LOST_GENERATION: Final = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.STALE_MEMBER_EPOCH,
)
"""Answers to a commit of an assignment that is over. What is still ours is committed anew, as it is by then."""
_MILLISECONDS: Final[Any] = itemgetter(1)
"""Of what ``Message.timestamp`` gives."""


class AssignmentListener(Protocol):
    """What the owner of a consumer is told, inside its calls of ``poll``, ``consume`` or ``close``."""

    def on_assigned(self, next_offsets: Mapping[int, int | None]) -> None:
        """New partitions and what is committed for each (None = nothing: it begins at the beginning)."""

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """They go when this returns; commits for them are still taken. All partitions stand still meanwhile."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """They are gone; another instance may own them already."""

    def on_committed(self, taken: Mapping[int, int], *, asked: Mapping[int, int]) -> None:
        """A commit of ``asked`` was answered: ``taken`` of it was taken."""


class StreamConsumer:
    """Owns the client. Blocks at most as long as a call says."""

    def __init__(self, kafka: KafkaSettings, settings: StreamSettings, listener: AssignmentListener) -> None:
        self._topic: Final = settings.topic
        self._listener: Final = listener
        self.fetch_positions: Final = FetchPositions(settings.topic)
        self._error_log: Final = runtime_kafka.ErrorLog("dmpd-stream")
        callbacks: dict[str, Any] = {
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
            "statistics.interval.ms": int(min(_STATISTICS_EVERY_S, settings.fetch_silence_timeout_s / 4) * 1000) or 1,
            "stats_cb": self.fetch_positions,
        }
        self._is_abandoned = False
        with runtime_kafka.making_client(kafka):
            self._client = Consumer(
                client_settings.tuning(settings)
                | runtime_kafka.client_config(kafka, "dmpd-stream")
                | client_settings.consumer_settings(settings)
                | callbacks
            )

    def subscribe(self) -> None:
        """Join the group; assignments come inside later calls of ``poll``."""
        self._client.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, timeout_s: float) -> Message | None:
        """Wait for one message (or error), serve callbacks. ``consume`` with a timeout would wait for all it asks."""
        return self._client.poll(timeout_s)

    def consume(self, records_max: int) -> list[Message]:
        """What else is there; does not wait."""
        return self._client.consume(records_max, 0)

    def log_end(self, partition: int) -> int:
        """Next offset at the end of the log, as the client's last fetch saw it; negative = not known. Does not wait."""
        _, high = self._client.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return int(high)

    def pause(self, partitions: Sequence[int]) -> None:
        if partitions:
            self._client.pause(self._list(partitions))

    def resume(self, partitions: Sequence[int]) -> None:
        if partitions:
            self._client.resume(self._list(partitions))

    def seek(self, partition: int, offset: int) -> None:
        """Go on at ``offset`` of a partition that is assigned and not paused."""
        target = TopicPartition(self._topic, partition, offset)
        try:
            self._client.seek(target)
        except KafkaException as error:  # it is not being fetched (yet): only a new start places it
            metrics.CLIENT_ERRORS.labels(_name(error)).inc()
            self._start_anew(target)

    def unpause_at(self, partition: int, offset: int) -> None:
        """Go on at ``offset``, and not paused, whatever the client thinks; the assignment stays as it is."""
        self.resume([partition])
        self.seek(partition, offset)

    def start_at(self, partition: int, offset: int | None) -> None:
        """Fetch an owned partition anew from ``offset``, not paused; None = the earliest there is.

        For when the client stopped fetching it (position out of range), or what it holds is of no use.
        """
        self._start_anew(TopicPartition(self._topic, partition, OFFSET_BEGINNING if offset is None else offset))

    def _start_anew(self, target: TopicPartition) -> None:
        # Local to the client: the group does not hear of it.
        self._client.incremental_unassign([target])
        self._client.incremental_assign([target])
        self._client.resume([target])

    def wake(self, partitions: Sequence[int]) -> None:
        """Wake the client's broker threads, which sleep up to 1 s when all their partitions were paused."""
        for partition in partitions:
            try:
                self._client.get_watermark_offsets(
                    TopicPartition(self._topic, partition), timeout=_WAKE_TIMEOUT_S, cached=False
                )
            except KafkaException as error:  # it only costs latency
                metrics.CLIENT_ERRORS.labels(_name(error)).inc()
                return

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Send a commit; answered by ``on_committed`` in a later call of ``poll``. Does not block."""
        try:
            self._client.commit(offsets=self._list(offsets, offsets), asynchronous=True)
        except KafkaException as error:
            self._answer(offsets, {}, error.args[0])

    def commit_confirmed(self, offsets: Mapping[int, int], timeout_s: float) -> bool:
        """Inside ``on_revoked``: commit and see that the broker has it, again while it refuses (a rebalance's turn).

        Blocks at most ``timeout_s``. What was taken is read back, because answers are served by ``poll`` only. A
        synchronous commit would block as long as the broker is away, and one from another thread waits until the
        callback has returned (confluent-kafka 2.16 lets one thread at a time into a consumer).
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self.commit(offsets)
            try:
                answer = self._client.committed(self._list(offsets), timeout=max(0.0, deadline_s - time.monotonic()))
            except KafkaException as error:
                metrics.CLIENT_ERRORS.labels(_name(error)).inc()
                return False
            if all(offsets[p.partition] == p.offset for p in answer):
                return True
            if time.monotonic() + _COMMIT_AGAIN_S >= deadline_s:
                return False
            time.sleep(_COMMIT_AGAIN_S)

    def close_bounded(self, timeout_s: float) -> bool:
        """Leave the group. False = it did not end in time (with a frozen broker it never does)."""
        return _run_bounded(self._client.close, "close", timeout_s)

    def abandon(self) -> None:
        """Let go of a client that failed. Its callbacks reach nobody any more; it closes in a thread that may hang."""
        self._is_abandoned = True
        threading.Thread(target=self._client.close, name="kafka-abandoned", daemon=True).start()

    def _on_assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_abandoned:
            return
        numbers = [p.partition for p in partitions]
        next_offsets = self._committed(numbers)
        starts = [
            TopicPartition(self._topic, number, OFFSET_BEGINNING if offset is None else offset)
            for number, offset in next_offsets.items()
        ]
        client.incremental_assign(starts)
        self.resume(numbers)  # the pause flag of an earlier assignment outlives its revocation
        metrics.REBALANCES.labels("assigned").inc(len(numbers))
        self._listener.on_assigned(next_offsets)

    def _on_revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_abandoned:
            return
        metrics.REBALANCES.labels("revoked").inc(len(partitions))
        self._listener.on_revoked([p.partition for p in partitions])

    def _on_lost(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_abandoned:
            return
        metrics.REBALANCES.labels("lost").inc(len(partitions))
        self._listener.on_lost([p.partition for p in partitions])

    def _committed(self, numbers: Sequence[int]) -> dict[int, int | None]:
        """Ask for committed offsets; blocks up to 30 s. Raises KafkaException: we cannot know where to start."""
        if not numbers:
            return {}
        for attempt in range(1, _COMMITTED_ATTEMPTS + 1):
            try:
                answer = self._client.committed(self._list(numbers), timeout=_COMMITTED_TIMEOUT_S)
                _raise_error(answer)
            except KafkaException as error:
                _log.warning("committed offsets not known (attempt %d): %s", attempt, error)
                metrics.CLIENT_ERRORS.labels(_name(error)).inc()
                if attempt == _COMMITTED_ATTEMPTS:
                    raise
            else:
                return {p.partition: p.offset if p.offset >= 0 else None for p in answer}
        raise AssertionError

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if self._is_abandoned:
            return
        asked = {p.partition: p.offset for p in partitions}
        taken = {p.partition: p.offset for p in partitions if not p.error} if error is None else {}
        errors = [p.error for p in partitions if p.error]
        self._answer(asked, taken, error if error is not None else errors[0] if errors else None)

    def _answer(self, asked: Mapping[int, int], taken: Mapping[int, int], error: KafkaError | None) -> None:
        is_lost = error is not None and error.code() in _LOST_GENERATION
        metrics.COMMITS.labels("ok" if error is None else "lost" if is_lost else "failed").inc()
        if error is not None:
            _log.warning("commit %s: %s", "of a lost generation dropped" if is_lost else "failed", error)
        self._listener.on_committed(taken, asked=asked)

    def _on_error(self, error: KafkaError) -> None:
        metrics.CLIENT_ERRORS.labels(error.name()).inc()
        self._error_log(error)

    def _list(
        self, partitions: Sequence[int] | Mapping[int, int], offsets: Mapping[int, int] | None = None
    ) -> list[TopicPartition]:
        if offsets is None:
            return [TopicPartition(self._topic, p) for p in partitions]
        return [TopicPartition(self._topic, p, offset) for p, offset in offsets.items()]


def frame_of(messages: Sequence[Message]) -> Frame:
    """The columns of messages of one partition, oldest first; none of them is an error."""
    if len(messages) == 1:
        return frame_of_one(messages[0])
    # Methods mapped in C, not comprehensions: half the cost, and this is where the parent's time goes. The client's
    # types allow more than it gives for a message that is no error.
    headers, unreadable = headers_of(messages)
    if unreadable:
        _tell_unreadable(unreadable)
    timestamps: Any = map(Message.timestamp, messages)
    keys: list[Any] = list(map(Message.key, messages))
    values: list[Any] = list(map(Message.value, messages))
    return Frame(
        _offsets_of(messages), list(map(_MILLISECONDS, timestamps)), keys, values, headers if any(headers) else None
    )


def frame_of_one(message: Any) -> Frame:
    """The same for the record that comes alone, in half the time."""
    try:
        headers = message.headers()
    except SystemError:
        headers = [UNREADABLE_HEADERS]
        _tell_unreadable([message])
    offset: int = message.offset()
    return Frame(
        range(offset, offset + 1),
        [message.timestamp()[1]],
        [message.key()],
        [message.value()],
        [headers] if headers else None,
    )


def _tell_unreadable(messages: Sequence[Message]) -> None:
    metrics.UNREADABLE_HEADERS.inc(len(messages))
    for message in messages:
        _log.warning("partition %s: a header's name at offset %s is no UTF-8", message.partition(), message.offset())


def _offsets_of(messages: Sequence[Any]) -> Offsets:
    first, last = messages[0].offset(), messages[-1].offset()
    if last - first == len(messages) - 1:
        return range(first, last + 1)
    return [message.offset() for message in messages]


def _raise_error(partitions: Sequence[TopicPartition]) -> None:
    for partition in partitions:
        if partition.error:
            raise KafkaException(partition.error)


def _run_bounded(action: Callable[[], object], name: str, timeout_s: float) -> bool:
    thread = threading.Thread(target=action, name=f"kafka-{name}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()


def _name(error: KafkaException) -> str:
    first = error.args[0] if error.args else None
    return first.name() if isinstance(first, KafkaError) else "unknown"
