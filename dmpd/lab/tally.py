"""Counts what arrived in Kafka: the lab's own reader of ``dmp.info``, independent of the Cloud Registry."""

from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

from dmpd.lab.describe import describe
from dmpd.lab.observation import NewestChange
from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.messages import Change, Checkpoint, Closed
from dmpd.runtime.kafka_reader import ReadRecord

_NEWEST: Final = 6
_BATCH_RECORDS_MAX: Final = 2_000
_READ_TIMEOUT_S: Final = 0.1


class Reader(Protocol):
    """What the tally needs of ``TopicReader``."""

    def read(self, timeout_s: float, records_max: int) -> list[ReadRecord]: ...


class KafkaTally:
    """Distinct ``(rae, session, epoch, rev)`` seen so far. Memory grows with them: for labs, not for fleets."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: set[tuple[str, str, int, int]] = set()
        self._next: dict[int, int] = {}
        self.newest: deque[NewestChange] = deque(maxlen=_NEWEST)
        self.invalid = 0

    @property
    def changes(self) -> int:
        """Distinct revisions seen: what the RAEs committed and Kafka holds."""
        return len(self._seen)

    def read_on(self) -> int:
        """Take what is there, waiting up to 0.1 s for the first record; returns how many records that were."""
        records = self._reader.read(_READ_TIMEOUT_S, _BATCH_RECORDS_MAX)
        for record in records:
            self._next[record.partition] = record.offset + 1
            self._count(record)
        return len(records)

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before these end offsets (by partition) was read."""
        return all(self._next.get(partition, 0) >= end for partition, end in ends.items())

    def _count(self, record: ReadRecord) -> None:
        try:
            _, message = decode_record(record.key, record.value)
        except InvalidMessageError:
            self.invalid += 1  # the stream dead-letters it; here it counts for nothing
            return
        if isinstance(message, (Change, Checkpoint, Closed)):
            place = (message.rae, message.session, message.epoch, message.rev)
            if place not in self._seen:
                self._seen.add(place)
                self.newest.append(
                    NewestChange(message.at.isoformat(), message.rae, message.session, ", ".join(describe(message)))
                )
