"""The canary's own tables: its runs, the lease that keeps a second one away, and whether it may run at all.

All calls block, and raise ``DatabaseError`` when the database does not do it. Connections are in autocommit.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from dmpd.canary.crowd import Leftover
from dmpd.canary.plan import number_of
from dmpd.canary.report import Report, p99s
from dmpd.runtime.database import Connection, connect
from dmpd.runtime.settings import DatabaseSettings

LEASE_S: Final = 30.0
_NAME: Final = "canary"
_COLUMNS: Final = (
    "run::text, started_at, ended_at, verdict, trigger, host, clients, ramp, profile, took_s, connected, sent, lost,"
    " wrong, reordered, duplicates, late, p99s, reasons"
)


class State(Struct, frozen=True, kw_only=True):
    """Whether the canary may run, and who runs it now."""

    enabled: bool = True
    changed_at: datetime | None = None
    changed_by: str = ""
    why: str = ""
    run: str | None = None
    """Of the lease, if it is not over."""
    holder: str | None = None


class Run(Struct, frozen=True, kw_only=True):
    """A row of ``canary_run`` without its detail."""

    run: str
    started_at: datetime
    ended_at: datetime | None
    verdict: str
    trigger: str
    host: str
    clients: int
    ramp: str
    profile: str
    took_s: float | None
    connected: int | None
    sent: int | None
    lost: int | None
    wrong: int | None
    reordered: int | None
    duplicates: int | None
    late: int | None
    p99s: Mapping[str, float] | None
    reasons: Sequence[Mapping[str, Any]] | None


class NewRun(Struct, frozen=True, kw_only=True):
    """What is known of a run when it starts."""

    run: str
    trigger: str
    host: str
    build: str
    epoch: int
    seed: int
    clients: int
    ramp: str
    profile: str
    changes: int


@contextlib.contextmanager
def connected(settings: DatabaseSettings) -> Iterator[Connection]:
    """A connection of the canary's own, closed at the end. Raises ``DatabaseUnreachableError``."""
    with contextlib.closing(connect(settings, application="dmpd-canary")) as connection:
        connection.autocommit = True
        yield connection


def take_lease(connection: Connection, run: str, holder: str) -> bool:
    """Become the one that runs, for ``LEASE_S``; False if another is, or the canary is disabled (``state`` tells)."""
    connection.execute(
        "INSERT INTO canary_state (name, enabled, changed_at, changed_by, why)"
        " VALUES (%s, true, clock_timestamp(), '', '') ON CONFLICT (name) DO NOTHING",
        (_NAME,),
    )
    done = connection.execute(
        "UPDATE canary_state SET run = %s::uuid, holder = %s,"
        " lease_until = clock_timestamp() + %s * INTERVAL '1 second'"
        " WHERE name = %s AND enabled AND (run IS NULL OR lease_until < clock_timestamp())",
        (run, holder, LEASE_S, _NAME),
    )
    return done.rowcount == 1


def renew_lease(connection: Connection, run: str) -> str | None:
    """Keep it; ``None``, or why the run must end: the lease is another's, or somebody disabled the canary."""
    row = connection.execute(
        "UPDATE canary_state SET lease_until = clock_timestamp() + %s * INTERVAL '1 second'"
        " WHERE name = %s AND run = %s::uuid RETURNING enabled, changed_by, why",
        (LEASE_S, _NAME, run),
    ).fetchone()
    if row is None:
        return "another instance has the lease"
    return None if row[0] else f"disabled by {row[1]}: {row[2]}"


def release_lease(connection: Connection, run: str) -> None:
    connection.execute(
        "UPDATE canary_state SET run = NULL, holder = NULL, lease_until = NULL WHERE name = %s AND run = %s::uuid",
        (_NAME, run),
    )


def read_state(connection: Connection) -> State:
    row = connection.execute(
        "SELECT enabled, changed_at, changed_by, why, run::text, holder, lease_until > clock_timestamp()"
        " FROM canary_state WHERE name = %s",
        (_NAME,),
    ).fetchone()
    if row is None:
        return State()
    enabled, changed_at, changed_by, why, run, holder, running = row
    return State(
        enabled=enabled,
        changed_at=changed_at,
        changed_by=changed_by,
        why=why,
        run=run if running else None,
        holder=holder if running else None,
    )


def set_enabled(connection: Connection, *, enabled: bool, who: str, why: str) -> None:
    """A run under way ends soon after it was disabled."""
    connection.execute(
        "INSERT INTO canary_state (name, enabled, changed_at, changed_by, why)"
        " VALUES (%s, %s, clock_timestamp(), %s, %s) ON CONFLICT (name) DO UPDATE"
        " SET enabled = excluded.enabled, changed_at = excluded.changed_at, changed_by = excluded.changed_by,"
        " why = excluded.why",
        (_NAME, enabled, who, why),
    )


def begin(connection: Connection, new: NewRun) -> None:
    connection.execute(
        "INSERT INTO canary_run (run, started_at, verdict, trigger, host, build, epoch, seed, clients, ramp, profile,"
        " changes) VALUES (%s::uuid, clock_timestamp(), 'running', %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            new.run,
            new.trigger,
            new.host,
            new.build,
            new.epoch,
            new.seed,
            new.clients,
            new.ramp,
            new.profile,
            new.changes,
        ),
    )


def end(connection: Connection, report: Report, *, history_days: int) -> None:
    """Keep the report, and remove those that are too old."""
    facts = report.facts
    connection.execute(
        "UPDATE canary_run SET ended_at = clock_timestamp(), verdict = %s, took_s = %s, connected = %s, sent = %s,"
        " lost = %s, wrong = %s, reordered = %s, duplicates = %s, late = %s, p99s = %s::jsonb, reasons = %s::jsonb,"
        " detail = %s::jsonb WHERE run = %s::uuid",
        (
            report.verdict,
            report.took_s,
            facts.connected,
            facts.sent,
            facts.lost.count,
            facts.wrong.count,
            facts.reordered.count,
            facts.duplicates.count,
            facts.late.count,
            _json(p99s(facts)),
            _json(report.reasons),
            _json(report),
            report.run,
        ),
    )
    connection.execute(
        "DELETE FROM canary_run WHERE started_at < clock_timestamp() - %s * INTERVAL '1 day'", (history_days,)
    )


def end_dead(connection: Connection, run: str) -> list[Run]:
    """Runs before ``run`` that never ended, now ended as ``unknown``; the caller has the lease, so nobody runs them."""
    reasons = [{"name": "runner_died", "word": "unknown", "sentence": "its runner died, or never came back"}]
    rows = connection.execute(
        f"UPDATE canary_run SET verdict = 'unknown', ended_at = clock_timestamp(), reasons = %s::jsonb"  # noqa: S608
        f" WHERE verdict = 'running' AND run <> %s::uuid RETURNING {_COLUMNS}",
        (_json(reasons), run),
    ).fetchall()
    return [_run(row) for row in rows]


def open_sessions(connection: Connection) -> list[Leftover]:
    """Device sessions of canaries that are not closed."""
    rows = connection.execute(
        "SELECT rae, session::text FROM device_session WHERE closed_at IS NULL"
        " AND rae IN (SELECT rae FROM rae WHERE rae LIKE 'canary-%') ORDER BY rae, session"
    ).fetchall()
    return [Leftover(number_of(rae), session) for rae, session in rows]


def highest_epoch(connection: Connection) -> int:
    """Of all runs; 0 without one."""
    row = connection.execute("SELECT coalesce(max(epoch), 0)::bigint FROM canary_run").fetchone()
    assert row is not None
    return int(row[0])


def baseline(connection: Connection, new: NewRun, *, runs_max: int) -> list[dict[str, float]]:
    """``p99s`` of the last runs of the same size and shape that were well, newest first."""
    rows = connection.execute(
        "SELECT p99s FROM canary_run WHERE verdict IN ('pass', 'degraded') AND clients = %s AND ramp = %s"
        " AND profile = %s AND changes = %s AND p99s IS NOT NULL ORDER BY started_at DESC LIMIT %s",
        (new.clients, new.ramp, new.profile, new.changes, runs_max),
    ).fetchall()
    return [found for (found,) in rows]


def last_runs(connection: Connection, limit: int) -> list[Run]:
    """Newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM canary_run ORDER BY started_at DESC LIMIT %s",  # noqa: S608 - the words are ours
        (limit,),
    ).fetchall()
    return [_run(row) for row in rows]


def find_report(connection: Connection, prefix: str) -> list[tuple[str, Report | None]]:
    """Runs whose name begins with ``prefix``, with their reports; two at most. ``None``: it has not ended, or died."""
    rows = connection.execute(
        "SELECT run::text, detail FROM canary_run WHERE left(run::text, %s) = %s ORDER BY started_at DESC LIMIT 2",
        (len(prefix), prefix),
    ).fetchall()
    return [(run, None if detail is None else msgspec.convert(detail, Report)) for run, detail in rows]


def ages_s(connection: Connection) -> tuple[float | None, float | None]:
    """How long ago the last run started, and the last one that ended by itself ended; ``None`` = there is none."""
    row = connection.execute(
        "SELECT extract(epoch FROM clock_timestamp() - max(started_at))::float8,"
        " extract(epoch FROM clock_timestamp() - max(CASE WHEN took_s IS NOT NULL THEN ended_at END))::float8"
        " FROM canary_run"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def _run(row: Sequence[Any]) -> Run:
    return Run(**dict(zip(Run.__struct_fields__, row, strict=True)))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
