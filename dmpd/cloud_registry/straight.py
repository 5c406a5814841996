"""The straight way of a batch into the database: what a run changes in a row that the worker knows, in one statement.

For the runs of ``scan``: one epoch, no gap, the row known and exact, or known not to exist. Everything else goes the
way of ``sink``, which reads and locks first. Here nothing is read under a lock: the statement writes a row only if it
still is where the worker knows it to be, and what it did not write goes the other way. So another writer can make it
slow and never wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import psycopg
from msgspec import Struct

from dmpd.cloud_registry import reader, statements
from dmpd.cloud_registry.decide import state_event
from dmpd.cloud_registry.known import Content, Known, content_of, different, rest_of, same_rest
from dmpd.model.content_size import growth_refused
from dmpd.model.record import CORE_FIELDS, DeviceState, Interface
from dmpd.model.running import Running
from dmpd.model.topics import Topic
from dmpd.runtime.database import Connection

_encode: Final = msgspec.json.encode


class NotAsKnownError(Exception):
    """A row is not where the worker knew it to be: another writer was there. The rows that were may be written."""


class Planned(Struct, frozen=True, gc=False):
    """What one run does to its row. ``known`` is how the row is remembered afterwards."""

    key: bytes
    place: tuple[str, str]
    """RAE and session: rows are written in this order."""
    known: Known
    is_new: bool
    """There is no row yet."""
    row: bytes
    """Of the JSON of ``statements.INSERT_STRAIGHT`` or, if there is a row, ``UPDATE_STRAIGHT``."""
    interfaces: bytes = b""
    """Of a new row, as members of a JSON array."""

    @property
    def size_bytes(self) -> int:
        """What is sent of it."""
        return len(self.row) + len(self.interfaces)


class _Update(Struct, frozen=True, gc=False):
    """See ``statements.UPDATE_STRAIGHT``."""

    rae: str
    session: str
    epoch: int
    was_rev: int
    was_partition: int
    was_offset: int
    rev: int
    seq: int
    state: str
    changed_at: Any
    kafka_offset: int
    attributes: Mapping[str, Any]
    event_at: Any
    event_seq: int | None
    event: Mapping[str, object] | None


def read_known(connection: Connection, topics: Mapping[bytes, Topic]) -> dict[bytes, Known | None]:
    """The rows of these keys without content: ``None`` where there is none; rows that are not exact are left out."""
    keys = {(topic.rae, topic.session): key for key, topic in topics.items()}
    found: dict[bytes, Known | None] = dict.fromkeys(topics)
    asked = reader.columns(keys)
    for rae, session, epoch, rev, seq, is_exact, partition, offset in connection.execute(statements.READ_PLACES, asked):
        key = keys[rae, session]
        if is_exact:
            found[key] = Known(epoch, rev, seq, partition, offset, None)
        else:
            del found[key]
    return found


def read_whole(connection: Connection, topics: Mapping[bytes, Topic]) -> dict[bytes, Known | None]:
    """As ``read_known``, with content."""
    keys = {(topic.rae, topic.session): key for key, topic in topics.items()}
    found: dict[bytes, Known | None] = dict.fromkeys(topics)
    for row_key, row in reader.read_whole(connection, keys).items():
        key = keys[row_key]
        if row.is_exact:
            found[key] = Known(row.epoch, row.rev, row.seq, row.partition, row.offset, content_of(row.record))
        else:
            del found[key]
    return found


def plan(key: bytes, run: Running, known: Known | None, partition: int) -> Planned | None:
    """What ``run`` does to the row ``known`` (with content; ``None``: no row), or ``None``: not to be done this way.

    Call it only for a run that has news, and does not only repeat the row.
    """
    if known is None:
        return _new(key, run, partition)
    content = known.content
    assert content is not None
    if run.record is not None and not (
        same_rest(content, run.record) and content.attributes.keys() <= run.attributes.keys()
    ):
        return None
    state = content.state if run.state is None else run.state
    news = different(content.attributes, run.attributes)
    attributes = {**content.attributes, **news}
    if growth_refused(content.attributes, attributes) is not None:
        return None
    seq = max(run.seq, known.seq)
    row = _Update(
        run.rae, run.session, known.epoch, known.rev, known.partition, known.offset, run.rev, seq, state, run.at,
        run.last_offset, news, *_event(run, content.state),
    )  # fmt: skip
    content = Content(state, attributes, content.rest)
    remembered = Known(run.epoch, run.rev, seq, partition, run.last_offset, content)
    return Planned(key, (run.rae, run.session), remembered, False, _encode(row))


def _new(key: bytes, run: Running, partition: int) -> Planned | None:
    """As ``dmpd.model.apply`` makes a row of a fold that holds a checkpoint; of one without it would be stale."""
    record = run.record
    if record is None or growth_refused({}, run.attributes) is not None:
        return None
    assert run.state is not None
    event_at, event_seq, event = _event(run, None)
    row = {name: getattr(record, name) for name in CORE_FIELDS} | {
        "rae": run.rae,
        "session": run.session,
        "epoch": run.epoch,
        "rev": run.rev,
        "seq": run.seq,
        "state": run.state,
        "changed_at": run.at,
        "kafka_offset": run.last_offset,
        "attributes": run.attributes,
        "event_at": event_at,
        "event_seq": event_seq,
        "event": event,
    }
    key_of = {"rae": run.rae, "session": run.session}
    interfaces = [
        _encode(key_of | {"place": place} | {name: getattr(one, name) for name in _INTERFACE})
        for place, one in enumerate(record.interfaces)
    ]
    content = Content(run.state, run.attributes, rest_of(record))
    remembered = Known(run.epoch, run.rev, run.seq, partition, run.last_offset, content)
    return Planned(key, (run.rae, run.session), remembered, True, _encode(row), b",".join(interfaces))


_INTERFACE: Final = Interface.__struct_fields__
_NO_EVENT: Final = (None, None, None)


def _event(run: Running, before: DeviceState | None) -> tuple[Any, int | None, Mapping[str, object] | None]:
    """``at``, ``seq`` and ``detail`` of what is told of the states that ``run`` passed."""
    for event in state_event(run.rae, run.session, run.epoch, before, run.said, run.unsaid):
        return event.at, event.seq, event.detail
    return _NO_EVENT


def changes_nothing(run: Running, known: Known) -> bool:
    """Whether ``run`` only repeats the row: the periodic checkpoint of a device at rest."""
    if run.record is None or run.rev != known.rev:
        return False
    content = known.content
    assert content is not None
    return (
        content.state == run.state
        and content.attributes.keys() == run.attributes.keys()
        and not different(content.attributes, run.attributes)
        and same_rest(content, run.record)
    )


def write(connection: Connection, planned: Sequence[Planned], *, partition: int) -> None:
    """Write it: the new rows in one statement, the changed ones in another. Blocks.

    Raises:
        NotAsKnownError: Some rows were not as planned, and are not written; which ones is not said.
        psycopg.Error: Whatever the database says; see ``sqlstate``.
    """
    in_order = sorted(planned, key=_place)
    if new := [one for one in in_order if one.is_new]:
        interfaces = [one.interfaces for one in new if one.interfaces]
        try:
            connection.execute(
                statements.INSERT_STRAIGHT, (_array(one.row for one in new), _array(interfaces), partition)
            )
        except psycopg.errors.UniqueViolation as error:  # a row, or what was left of one, appeared
            raise NotAsKnownError from error
    if changed := [one.row for one in in_order if not one.is_new]:
        with connection.cursor() as cursor:
            (written,) = cursor.execute(statements.UPDATE_STRAIGHT, (partition, _array(changed))).fetchone() or (0,)
        if written != len(changed):
            raise NotAsKnownError


def _array(members: Iterable[bytes]) -> str:
    return f"[{b','.join(members).decode()}]"


def _place(one: Planned) -> tuple[str, str]:
    return one.place


def chunks(planned: Iterable[Planned], *, sessions_max: int, bytes_max: int) -> Iterable[list[Planned]]:
    """Cut ``planned`` into what is written together."""
    chunk: list[Planned] = []
    size_bytes = 0
    for one in planned:
        own = one.size_bytes
        if chunk and (len(chunk) >= sessions_max or size_bytes + own > bytes_max):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(one)
        size_bytes += own
    if chunk:
        yield chunk
