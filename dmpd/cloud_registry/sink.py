"""Writes units to the database: exactly what ``dmpd.model`` says, whoever else writes the same rows at the same time.

Sessions are locked in key order, read, judged by the model, and only what differs is written. Exact at READ COMMITTED,
because what is read after the lock is newer than it; at higher levels a conflict is 40001 and the caller tries again.
RAE rows are locked before device sessions, so that any two writers wait for each other in one order.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from msgspec import Raw

from dmpd.cloud_registry import reader, statements
from dmpd.cloud_registry.asks import Asks
from dmpd.cloud_registry.decide import Decision, EventRow, Refusal, TooManyAtOnceError, decide, event_row, newest
from dmpd.cloud_registry.gather import Unit, is_retained, received_at
from dmpd.cloud_registry.same_json import same_json, same_record
from dmpd.model.apply import DeviceRow
from dmpd.model.messages import Event, Roster, Status
from dmpd.model.rae import RaeRow, apply_status
from dmpd.model.record import CORE_FIELDS
from dmpd.runtime.database import Connection
from dmpd.stream.handler import Record

_log = logging.getLogger(__name__)

_status_decoder: Final = msgspec.json.Decoder(Status)


class RowAppearedError(Exception):
    """Another writer made a row that did not exist a moment ago: nothing was written, do the transaction again."""


_BY_KEYS_ONLY: Final[LiteralString] = """
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false), set_config('jit', 'off', false),
    set_config('plan_cache_mode', 'force_generic_plan', false)
"""


def look_up_by_keys(connection: Connection) -> None:
    """Have every statement of this connection find its rows by their keys, planned once. Outside any transaction.

    A plan that is kept was made when tables may have been empty: then reading them whole, for each row of a batch,
    looks cheapest, and goes on at a million rows (measured: 400 us of the database for each update instead of 10). And
    with a plan for each execution a single change costs it 0.8 ms instead of 0.46. All that a worker does is by keys.
    """
    try:
        connection.execute(_BY_KEYS_ONLY)
    except psycopg.Error as error:  # CockroachDB, which plans anew as tables grow
        _log.debug("settings of the planner: %s", error)


def find_phantoms(connection: Connection, rosters: Sequence[Roster]) -> Mapping[int, Sequence[str]]:
    """For each roster the sessions that it may declare absent: in its range, last heard of before it, not listed."""
    found: dict[int, Sequence[str]] = {}
    with connection.transaction():
        for place, roster in enumerate(rosters):
            asked = (roster.rae, roster.first, roster.last, roster.epoch, roster.seq_high)
            listed = set(roster.sessions)
            sessions = [session for (session,) in connection.execute(statements.PHANTOMS, asked)]
            found[place] = [session for session in sessions if session not in listed]
    return found


def leave_out_old(connection: Connection, units: Sequence[Unit], asks: Asks) -> list[Unit]:
    """S0: the units that may change something. A plain read: a replay takes no lock and writes no log.

    What is left out may still be news of its RAE (an outranked epoch, a session that ended): that is in ``asks``.
    """
    positions = {unit.key: position for unit in units if not unit.is_rae and (position := newest(unit)) is not None}
    if not positions:
        return list(units)
    with connection.transaction():
        heads = reader.read_rows(connection, positions)
        doubtful = {
            key: row for key, row in heads.items() if row.closed is not None or positions[key] <= (row.epoch, row.rev)
        }
        rows = reader.with_content(connection, doubtful)
    old = {unit.key for unit in units if unit.key in rows and _changes_nothing(unit, rows[unit.key], asks)}
    return [unit for unit in units if unit.key not in old]


def write(connection: Connection, units: Sequence[Unit], *, partition: int, asks: Asks) -> Sequence[Refusal]:
    """Write ``units`` in one transaction: all of it or, raising, nothing.

    Returns the records that the rules refuse, because a row would grow over its bound; all others are written.

    Blocks for row locks and the database, bounded by the connection's timeouts.

    Args:
        connection: Outside any transaction.
        units: At most one per key.
        partition: Kafka partition that the records came from.
        asks: Gets what the RAEs have to be told because of them.

    Raises:
        RowAppearedError: Try again at once.
        TooManyAtOnceError: Give the units apart, and one alone in halves.
        psycopg.Error: Whatever the database says; see ``sqlstate``.
    """
    with connection.transaction():
        events = _write_raes(connection, [unit for unit in units if unit.is_rae], partition, asks)
        refusals = _write_sessions(connection, [unit for unit in units if not unit.is_rae], partition, asks, events)
        _execute(connection, statements.INSERT_EVENTS, sorted(events, key=_event_key))
    return refusals


def _write_raes(connection: Connection, units: Sequence[Unit], partition: int, asks: Asks) -> list[EventRow]:
    events = [event_row(step.message) for unit in units for step in unit.steps if isinstance(step.message, Event)]
    told = [unit for unit in units if any(isinstance(step.message, Status) for step in unit.steps)]
    if not told:
        return events
    stored = {
        rae: RaeRow(rae=rae, status=_status_decoder.decode(status), heard_at=heard_at)
        for rae, status, heard_at in connection.execute(statements.LOCK_RAES, ([unit.rae for unit in told],))
    }
    new: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for unit in told:
        before = stored.get(unit.rae)
        after, record = _rae_after(unit, before, asks)
        if after is not None and after is not before:
            assert record is not None
            (new if before is None else changed).append(_rae_values(after, partition, record))
    _insert(connection, statements.INSERT_RAES, new)
    _execute(connection, statements.UPDATE_RAES, changed)
    return events


def _rae_after(unit: Unit, row: RaeRow | None, asks: Asks) -> tuple[RaeRow | None, Record | None]:
    changed_by: Record | None = None
    for record, message in unit.steps:
        if isinstance(message, Status):
            after, verdict = apply_status(row, message, received_at=received_at(record), retained=is_retained(record))
            asks.take(unit.rae, verdict)
            if after is not row:
                row, changed_by = after, record
    return row, changed_by


def _write_sessions(
    connection: Connection, units: Sequence[Unit], partition: int, asks: Asks, events: list[EventRow]
) -> list[Refusal]:
    """All but their events, which are added to ``events``."""
    keys = [unit.key for unit in units if any(not isinstance(step.message, Event) for step in unit.steps)]
    stored = reader.with_content(connection, reader.lock_rows(connection, keys)) if keys else {}
    refusals: list[Refusal] = []
    written: list[tuple[DeviceRow | None, DeviceRow, Record]] = []
    for unit in units:
        before = stored.get(unit.key)
        decision = decide(unit, before, asks)
        events.extend(decision.events)
        refusals.extend(decision.refusals)
        if decision.row is not None and _differs(before, decision):
            assert decision.record is not None
            written.append((before, decision.row, decision.record))
    _insert(
        connection,
        statements.INSERT_SESSIONS,
        [_values(after, partition, record.offset) for before, after, record in written if before is None],
    )
    _execute(
        connection,
        statements.UPDATE_SESSIONS,
        [_values(after, partition, record.offset) for before, after, record in written if before is not None],
    )
    _write_children(connection, [(before, after) for before, after, _ in written])
    return refusals


def _write_children(connection: Connection, pairs: Collection[tuple[DeviceRow | None, DeviceRow]]) -> None:
    surplus, interfaces, gone, attributes = [], [], [], []
    for before, after in pairs:
        key = {"rae": after.rae, "session": after.session}
        old = before.record if before is not None else None
        old_interfaces = old.interfaces if old is not None else ()
        new_interfaces = after.record.interfaces
        if len(new_interfaces) < len(old_interfaces):
            surplus.append(key | {"places": len(new_interfaces)})
        for place, interface in enumerate(new_interfaces):
            if place >= len(old_interfaces) or old_interfaces[place] != interface:
                whole = msgspec.structs.asdict(interface)
                interfaces.append(key | {"place": place} | whole)
        old_attributes = old.attributes if old is not None else {}
        names = [name for name in old_attributes if name not in after.record.attributes]
        if names:
            gone.append(key | {"names": names})
        if different := _different(old_attributes, after.record.attributes):
            attributes.append(key | {"attributes": different})
    _execute(connection, statements.DELETE_INTERFACES, surplus)
    _execute(connection, statements.UPSERT_INTERFACES, interfaces)
    _execute(connection, statements.DELETE_ATTRIBUTES, gone)
    _execute(connection, statements.UPSERT_ATTRIBUTES, attributes)


def _different(old: Mapping[str, Raw], new: Mapping[str, Raw]) -> dict[str, Raw]:
    return {name: value for name, value in new.items() if name not in old or not same_json(old[name], value)}


def _changes_nothing(unit: Unit, row: DeviceRow, asks: Asks) -> bool:
    try:
        decision = decide(unit, row, asks)
    except TooManyAtOnceError:
        return False
    return not decision.refusals and not _differs(row, decision)


def _differs(before: DeviceRow | None, decision: Decision) -> bool:
    """Whether the row must be written. A checkpoint of what is stored differs in the spelling of JSON only."""
    after = decision.row
    if before is None or after is None or after is before:
        return after is not before
    same_place = (after.epoch, after.rev, after.seq, after.stale, after.absent, after.closed) == (
        before.epoch,
        before.rev,
        before.seq,
        before.stale,
        before.absent,
        before.closed,
    )
    return not (same_place and same_record(before.record, after.record))


def _values(row: DeviceRow, partition: int, offset: int) -> dict[str, Any]:
    values = {name: getattr(row.record, name) for name in CORE_FIELDS}
    return values | {
        "rae": row.rae,
        "session": row.session,
        "epoch": row.epoch,
        "rev": row.rev,
        "seq": row.seq,
        "stale": row.stale,
        "absent": row.absent,
        "closed": row.closed,
        "successor": row.successor,
        "changed_at": row.changed_at,
        "kafka_partition": partition,
        "kafka_offset": offset,
    }


def _rae_values(row: RaeRow, partition: int, record: Record) -> dict[str, Any]:
    return {
        "rae": row.rae,
        "epoch": row.status.epoch,
        "run": row.status.run,
        "state": row.status.state,
        "status": row.status,
        "heard_at": row.heard_at,
        "kafka_partition": partition,
        "kafka_offset": record.offset,
    }


def _event_key(event: EventRow) -> tuple[Any, ...]:
    return event.rae, event.session, event.at, event.seq, event.code


def _insert(connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows and _execute(connection, statement, rows) != len(rows):
        raise RowAppearedError


def _execute(connection: Connection, statement: Any, rows: Iterable[Any]) -> int:
    """Run ``statement`` with ``rows`` as its JSON; nothing if there are none. Returns the rows it wrote."""
    rows = list(rows)
    if not rows:
        return 0
    return connection.execute(statement, (msgspec.json.encode(rows).decode(),)).rowcount
