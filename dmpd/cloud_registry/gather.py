"""A batch of records as units of work: one per device session and one per RAE, each with its messages in order.

Pure. A unit is what the database may refuse alone: it knows the records it is made of, so that it can be taken apart
down to the one that is to blame.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from msgspec import Struct

from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.limits import YEAR_MAX, YEAR_MIN
from dmpd.model.messages import Change, Checkpoint, Closed, Event, Roster, Status
from dmpd.model.topics import RAE_SESSION
from dmpd.stream.handler import Record

Sessionwise = Change | Checkpoint | Closed | Event | Roster
Raewise = Status | Event


class Step(NamedTuple):
    """One message and the record it came in. A roster is a step of each session that it may concern."""

    record: Record
    message: Sessionwise | Raewise


class Unit(Struct, frozen=True):
    """What is written together: the steps of one device session, or of one RAE itself (``session`` is ``rae``)."""

    rae: str
    session: str
    steps: Sequence[Step]

    @property
    def key(self) -> tuple[str, str]:
        return self.rae, self.session

    @property
    def is_rae(self) -> bool:
        return self.session == RAE_SESSION

    @property
    def size_bytes(self) -> int:
        """Of what it was made of; an upper bound of what is written, folding aside."""
        return sum(len(step.record.value or b"") for step in self.steps)

    def halves(self) -> "tuple[Unit, Unit]":
        """The older and the newer steps: written one after the other they are the whole."""
        middle = len(self.steps) // 2
        return (
            Unit(self.rae, self.session, self.steps[:middle]),
            Unit(self.rae, self.session, self.steps[middle:]),
        )


Refuse = Callable[[Record, str, str], None]
Phantoms = Callable[[Sequence[Roster]], Mapping[int, Sequence[str]]]
"""For each roster (by its place in the argument) the stored sessions that it may declare absent."""


def gather(records: Iterable[Record], refuse: Refuse, phantoms: Phantoms) -> list[Unit]:
    """Decode ``records`` and sort them into units, ordered by key.

    Args:
        records: Of one partition, oldest first.
        refuse: Told of every record that is no valid message, with reason and detail; such a record is in no unit.
        phantoms: Asked once, and only if there are rosters.
    """
    steps: dict[tuple[str, str], list[Step]] = {}
    by_rae: dict[str, set[str]] = {}
    messages = list(_decoded(records, refuse))
    rosters = [step.message for step in messages if isinstance(step.message, Roster)]
    stored = phantoms(rosters) if rosters else {}
    rosters_seen = 0
    for step in messages:
        message = step.message
        if isinstance(message, Roster):
            concerned = set(stored.get(rosters_seen, ()))
            concerned.update(by_rae.get(message.rae, ()))
            rosters_seen += 1
            listed = set(message.sessions)
            for session in concerned:
                if session not in listed and message.first <= session <= message.last:
                    steps.setdefault((message.rae, session), []).append(step)
            continue
        steps.setdefault((message.rae, message.session), []).append(step)
        if message.session != RAE_SESSION:
            by_rae.setdefault(message.rae, set()).add(message.session)
    return [Unit(rae, session, found) for (rae, session), found in sorted(steps.items())]


def _decoded(records: Iterable[Record], refuse: Refuse) -> Iterable[Step]:
    for record in records:
        try:
            topic, message = decode_record(record.key, record.value)
        except InvalidMessageError as error:
            refuse(record, error.reason, error.detail)
            continue
        if topic.kind != "info" or not isinstance(message, Sessionwise | Raewise):
            refuse(record, "bad_key", f"a topic for {topic.kind} has no place in this feed")
            continue
        yield Step(record, message)


def received_at(record: Record) -> datetime:
    """When the bridge received it; Kafka's time of a record that no bridge made, or whose header is no instant.

    Within the years of ``limits``, whatever it says: a producer may say any time, also one that no calendar has.
    """
    header = dict(record.headers).get("mqtt-received-at")
    if header is not None:
        try:
            instant = datetime.fromisoformat(header.decode("ascii"))
        except ValueError:
            instant = None
        if instant is not None and instant.tzinfo is not None and YEAR_MIN <= instant.year <= YEAR_MAX:
            return instant.astimezone(UTC)
    return instant_of(record.timestamp_ms)


def instant_of(timestamp_ms: int) -> datetime:
    """Kafka's time of a record, moved to the nearest that can be said: 1970 to the end of ``YEAR_MAX``."""
    return datetime.fromtimestamp(min(max(timestamp_ms, 0), _TIMESTAMP_MS_MAX) / 1000, tz=UTC)


_TIMESTAMP_MS_MAX: Final = int(datetime(YEAR_MAX, 12, 31, tzinfo=UTC).timestamp()) * 1000


def is_retained(record: Record) -> bool:
    """Whether it is the broker's stored copy: it says what was, not what is."""
    return dict(record.headers).get("mqtt-retain") == b"1"


_NOTHING: Final[Mapping[tuple[str, str], int]] = {}


def chunks(
    units: Sequence[Unit], *, sessions_max: int, bytes_max: int, row_bytes: Mapping[tuple[str, str], int] = _NOTHING
) -> Iterable[Sequence[Unit]]:
    """Cut ``units`` into transactions, in order; a unit larger than ``bytes_max``, with its row, is alone."""
    chunk: list[Unit] = []
    size_bytes = 0
    for unit in units:
        own = unit.size_bytes + row_bytes.get(unit.key, 0)
        if chunk and (len(chunk) >= sessions_max or size_bytes + own > bytes_max):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(unit)
        size_bytes += own
    if chunk:
        yield chunk
