"""From the Kafka client into the rings: whose record it is, whether it may still be placed, what an error means.

Parent's thread only. The client's callbacks run inside its calls, so partitions may come and go in the middle of one.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Message

from dmpd.stream import metrics
from dmpd.stream.consumer import StreamConsumer, frame_of, frame_of_one
from dmpd.stream.frames import Frame
from dmpd.stream.gathering import Gathering
from dmpd.stream.messages import by_partition, errors_apart, is_fatal, is_out_of_range, partition_of
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings

_FEW: Final = 8
"""Records that came at once: of so few each is mostly of another partition."""
_BULK: Final = 16
"""Records that came at once: of fewer nobody waits for more."""

_log = logging.getLogger(__name__)


class ClientFailedError(Exception):
    """The Kafka client is in a fatal state: only another one helps."""


class Intake:
    """Reads ``partitions`` as they are at each moment; they are the parent's."""

    def __init__(
        self, partitions: Mapping[int, Partition], outgoing: OutgoingRecords, settings: StreamSettings
    ) -> None:
        self._partitions: Final = partitions
        self._outgoing: Final = outgoing
        self._records_max: Final = settings.consume_records_max
        self._record_bytes_max: Final = settings.max_record_bytes
        self._epochs: dict[int, int] | None = None
        """Of the assignments as they are now; None = not known since one changed."""
        self._gathering = Gathering()
        self._count = 0

    def fetch(self, consumer: StreamConsumer, timeout_s: float, *, is_draining: bool) -> list[Partition]:
        """Take what there is, waiting for the first record up to ``timeout_s``; returns whose rings got something.

        Raises:
            ClientFailedError, KafkaException: The client is of no use any more.
        """
        epochs, messages = self._take(consumer, timeout_s)
        if not messages:
            return []
        if len(messages) <= _FEW and self._epochs is epochs:
            # Where records trickle in, nearly all come so: what is done here is what such a record costs.
            alone = self._partitions_of(messages)
            if alone is not None:
                for partition, message in zip(alone, messages, strict=True):
                    self._place(partition, frame_of_one(message), 1)
                return alone
        records, errors = errors_apart(messages)
        # What came in the call that changed an assignment is nobody's.
        now = epochs if self._epochs is epochs else self._current_epochs()
        placed = []
        for number, group in by_partition(records).items():
            if number in now and epochs.get(number) == now[number]:
                partition = self._partitions[number]
                if len(group) >= _BULK:
                    partition.log_end = consumer.log_end(number)
                self._place(partition, frame_of(group), len(group))
                placed.append(partition)
            else:
                self._drop_foreign(number, len(group), consumer)
        # Behind the records, which came before it: a range is lost from the last of them on.
        for message in errors:
            self._on_error(message, consumer, is_draining=is_draining)
        return placed

    def _take(self, consumer: StreamConsumer, timeout_s: float) -> tuple[Mapping[int, int], list[Message]]:
        """What there is, and the epochs of the assignments before the call that gave it."""
        wait_s = self._gathering.wait_s(time.monotonic())
        if wait_s and timeout_s:
            time.sleep(wait_s)
            epochs = self._known_epochs()
            messages = consumer.consume(self._records_max)
            self._gathering.took(time.monotonic(), len(messages), waited=True)
            if messages:
                return epochs, messages
        first = consumer.poll(timeout_s)
        epochs = self._known_epochs()
        if first is None:
            return epochs, []
        messages = [first, *consumer.consume(self._records_max)]
        self._gathering.took(time.monotonic(), len(messages), waited=False)
        return epochs, messages

    def _partitions_of(self, messages: Sequence[Message]) -> list[Partition] | None:
        """Of each record its own; None = two have the same, or one is nobody's, or an error."""
        found: list[Partition] = []
        for message in messages:
            partition = self._partitions.get(partition_of(message))
            if partition is None or partition in found or message.error() is not None:
                return None
            found.append(partition)
        return found

    def _known_epochs(self) -> Mapping[int, int]:
        if self._epochs is None:
            self._epochs = self._current_epochs()
        return self._epochs

    def forget_epochs(self) -> None:
        """Call it whenever a partition came, went or began anew."""
        self._epochs = None

    def take_count(self) -> int:
        """How many records were placed since the last call."""
        count, self._count = self._count, 0
        return count

    def _current_epochs(self) -> dict[int, int]:
        return {number: partition.epoch for number, partition in self._partitions.items()}

    def _place(self, partition: Partition, frame: Frame, count: int) -> None:
        if partition.lost_from is not None:
            self._tell_loss(partition, frame.offsets[0])
        ledger = partition.ledger
        before = ledger.placed_records
        for oversized in partition.place(frame):
            self._outgoing.give_up_oversized(partition, oversized, limit_bytes=self._record_bytes_max)
        partition.tell_worker()
        placed = ledger.placed_records - before
        self._count += placed
        if placed < count:
            metrics.REFUSED.inc(count - placed)

    def _tell_loss(self, partition: Partition, first_offset: int) -> None:
        lost = partition.take_loss(first_offset)
        if lost:
            metrics.LOST.inc(lost)
            _log.error("partition %d: Kafka no longer has %d offsets before %d", partition.number, lost, first_offset)

    def _drop_foreign(self, number: int, count: int, consumer: StreamConsumer) -> None:
        """Records that came in the same call as a new assignment: which one they belong to cannot be known."""
        metrics.FOREIGN.inc(count)
        partition = self._partitions.get(number)
        if partition is None:
            return
        if partition.next_to_place is None:
            consumer.start_at(number, None)
        else:
            consumer.seek(number, partition.next_to_place)

    def _on_error(self, message: Message, consumer: StreamConsumer, *, is_draining: bool) -> None:
        error = message.error()
        assert error is not None
        metrics.CLIENT_ERRORS.labels(error.name()).inc()
        if is_fatal(error):
            raise ClientFailedError(str(error))
        partition = self._partitions.get(partition_of(message))
        if is_out_of_range(error) and partition is not None and not is_draining:
            _log.error("partition %d: %s; going on at the earliest offset there is", partition.number, error)
            partition.lost_from = partition.next_to_place
            consumer.start_at(partition.number, None)
        else:
            _log.warning("Kafka: %s", error)
