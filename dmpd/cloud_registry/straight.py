"""The straight way of a batch into the database: what a run changes in a row that the worker knows, in one statement.

For the runs of ``scan``: one epoch, no gap, the row known and exact, or known not to exist. Everything else goes the
way of ``sink``, which reads and locks first. Here nothing is read under a lock: the statement writes a row only if it
still is where the worker knows it to be, and what it did not write goes the other way. So another writer can make it
slow and never wrong.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from dmpd.cloud_registry import reader, sink, statements
from dmpd.cloud_registry.decide import EventRow, state_event
from dmpd.cloud_registry.known import Content, Known, content_of, different, same_rest, value_bytes
from dmpd.model.apply import DeviceRow, apply
from dmpd.model.content_size import growth_refused
from dmpd.model.record import DeviceRecord
from dmpd.model.running import Running
from dmpd.model.topics import Topic
from dmpd.runtime.database import Connection

_encode: Final = msgspec.json.encode


class NotAsKnownError(Exception):
    """A row is not where the worker knew it to be: another writer was there. The rows that were are written."""


class Planned(Struct, frozen=True, gc=False):
    """What one run does to its row. ``known`` is how the row is remembered afterwards."""

    key: bytes
    rae: str
    session: str
    known: Known
    new: DeviceRow | None
    """The whole row, if there is none yet, and its ``events``."""
    events: Sequence[EventRow]
    update: "_Update | None"
    """What changes, if there is one."""


class _Update(Struct, frozen=True, gc=False):
    """A row of the statement's JSON; see ``statements.UPDATE_STRAIGHT``."""

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
    event: EventRow | None


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


def read_content(
    connection: Connection, known: Mapping[bytes, Known], topics: Mapping[bytes, Topic]
) -> dict[bytes, Known]:
    """``known`` with content. What was changed meanwhile, or is not exact any longer, is left out."""
    keys = {(topics[key].rae, topics[key].session): key for key in known}
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rows = reader.with_content(connection, reader.read_rows(connection, keys))
        places = {
            keys[rae, session]: (epoch, rev, is_exact, partition, offset)
            for rae, session, epoch, rev, _, is_exact, partition, offset in connection.execute(
                statements.READ_PLACES, reader.columns(keys)
            )
        }
    found: dict[bytes, Known] = {}
    for row_key, row in rows.items():
        key = keys[row_key]
        before = known[key]
        if places.get(key) == (before.epoch, before.rev, True, before.partition, before.offset):
            found[key] = msgspec.structs.replace(before, content=content_of(row.record))
    return found


def plan(key: bytes, run: Running, known: Known | None, partition: int) -> Planned | None:
    """What ``run`` does to the row ``known`` (with content; ``None``: no row), or ``None``: not to be done this way.

    Call it only for a run that has news, and does not only repeat the row.
    """
    if known is None:
        return _new(key, run, partition)
    content = known.content
    assert content is not None
    assert run.at is not None
    if run.replace:
        if not same_rest(content, _record_of(run)) or not content.attributes.keys() <= run.attributes.keys():
            return None
    elif not run.fields.keys() <= _OFTEN:
        return None
    state = run.fields.get("state", content.state)
    news = different(content.attributes, run.attributes)
    attributes = {**content.attributes, **news}
    if growth_refused(content.attributes, attributes) is not None:
        return None
    events = state_event(run.rae, run.session, run.epoch, content.state, run.said, run.unsaid)
    seq = max(run.seq, known.seq)
    update = _Update(
        run.rae, run.session, known.epoch, known.rev, known.partition, known.offset, run.rev, seq, state, run.at,
        run.last_offset, news, next(iter(events), None),
    )  # fmt: skip
    content = Content(state, attributes, content.rest)
    remembered = Known(run.epoch, run.rev, seq, partition, run.last_offset, content)
    return Planned(key, run.rae, run.session, remembered, None, (), update)


_OFTEN: Final = frozenset(("state",))
"""The fields, beside attributes, that the statement writes."""


def _new(key: bytes, run: Running, partition: int) -> Planned | None:
    row, _ = apply(None, run.fold(), rae=run.rae, session=run.session)
    if row is None or row.stale:
        return None
    events = list(state_event(run.rae, run.session, run.epoch, None, run.said, run.unsaid))
    remembered = Known(row.epoch, row.rev, row.seq, partition, run.last_offset, content_of(row.record))
    return Planned(key, run.rae, run.session, remembered, row, events, None)


def changes_nothing(run: Running, known: Known) -> bool:
    """Whether ``run`` only repeats the row: the periodic checkpoint of a device at rest."""
    if not run.replace or run.rev != known.rev:
        return False
    content = known.content
    assert content is not None
    return (
        content.state == run.fields["state"]
        and content.attributes.keys() == run.attributes.keys()
        and not different(content.attributes, run.attributes)
        and same_rest(content, _record_of(run))
    )


def _record_of(run: Running) -> DeviceRecord:
    """Of a run that replaces; without attributes."""
    return DeviceRecord(**run.fields)


def write(connection: Connection, planned: Sequence[Planned], *, partition: int) -> None:
    """Write it: the new rows in one transaction, the changed ones in one statement. Blocks.

    Raises:
        NotAsKnownError: Some rows were not as planned, and are not written; which ones is not said.
        psycopg.Error: Whatever the database says; see ``refusal``.
    """
    new = sorted((one for one in planned if one.new is not None), key=_place)
    if new and not _insert(connection, new, partition):
        raise NotAsKnownError
    updates = [one.update for one in sorted(planned, key=_place) if one.update is not None]
    if updates:
        body = _encode(updates).decode()
        with connection.cursor() as cursor:
            (written,) = cursor.execute(statements.UPDATE_STRAIGHT, (partition, body)).fetchone() or (0,)
        if written != len(updates):
            raise NotAsKnownError


def _insert(connection: Connection, new: Collection[Planned], partition: int) -> bool:
    """All or nothing; False if a row appeared meanwhile."""
    try:
        with connection.transaction():
            rows = [(one.new, one.known.offset) for one in new if one.new is not None]
            sink.insert_rows(connection, rows, partition)
            sink.insert_events(connection, [event for one in new for event in one.events])
    except sink.RowAppearedError:
        return False
    return True


def _place(one: Planned) -> tuple[str, str]:
    return one.rae, one.session


def chunks(planned: Iterable[Planned], *, sessions_max: int, bytes_max: int) -> Iterable[list[Planned]]:
    """Cut ``planned`` into what is written together."""
    chunk: list[Planned] = []
    size_bytes = 0
    for one in planned:
        own = _size_bytes(one)
        if chunk and (len(chunk) >= sessions_max or size_bytes + own > bytes_max):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(one)
        size_bytes += own
    if chunk:
        yield chunk


def _size_bytes(one: Planned) -> int:
    """About what is sent of it."""
    content = one.known.content
    assert content is not None
    own, values = (len(content.rest), content.attributes) if one.update is None else (0, one.update.attributes)
    return _ROW_BYTES + own + sum(value_bytes(value) or _VALUE_BYTES for value in values.values())


_ROW_BYTES: Final = 1000
_VALUE_BYTES: Final = 100
