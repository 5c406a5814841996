"""What people ask of grants: plain reads, never a lock."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from dmpd.access.rows import COLUMNS, grant_of
from dmpd.model.grants import Grant
from dmpd.model.topics import is_session
from dmpd.runtime.database import Connection

LIST_MAX = 10_000


class AuditLine(Struct, frozen=True, kw_only=True):
    """One line of ``access_event``."""

    at: datetime
    code: str
    grant: str | None
    principal: str | None
    actor: str
    detail: Mapping[str, Any]


class DaemonState(Struct, frozen=True, kw_only=True):
    """What the daemon said last."""

    silence_s: float
    problem: str
    detail: Mapping[str, Any]


def clock(connection: Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def grants(
    connection: Connection,
    *,
    user: str | None = None,
    rae: str | None = None,
    at: datetime | None = None,
    past: bool = False,
) -> list[Grant]:
    """Grants of ``user`` and ``rae``: those not over, all (``past``), or those in force at ``at``; by their ends."""
    found = connection.execute(
        f"SELECT {COLUMNS} FROM access_grant"  # noqa: S608 - no input
        " WHERE (%(user)s::text IS NULL OR user_name = %(user)s) AND (%(rae)s::text IS NULL OR rae = %(rae)s)"
        " AND (%(past)s OR (%(at)s::timestamptz IS NULL AND ended_at IS NULL AND ends_at > clock_timestamp())"
        "      OR (starts_at <= %(at)s AND ends_at > %(at)s AND (ended_at IS NULL OR ended_at > %(at)s)))"
        " ORDER BY ends_at, id LIMIT %(limit)s",
        {"user": user, "rae": rae, "at": at, "past": past, "limit": LIST_MAX},
    ).fetchall()
    return [grant_of(row) for row in found]


def closed_sessions(connection: Connection, found: Sequence[Grant]) -> set[tuple[str, str]]:
    """The device sessions of these grants that have ended."""
    keys = sorted({(one.rae, one.session) for one in found if one.session is not None and is_session(one.session)})
    rows = connection.execute(
        "SELECT s.rae, s.session::text FROM device_session AS s JOIN unnest(%s::text[], %s::text[]) AS k(rae, session)"
        " ON s.rae = k.rae AND s.session = k.session::uuid WHERE s.closed_at IS NOT NULL",
        ([rae for rae, _ in keys], [session for _, session in keys]),
    ).fetchall()
    return {(row[0], row[1]) for row in rows}


def is_known_rae(connection: Connection, rae: str) -> bool:
    """Whether the RAE was ever heard of."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM rae WHERE rae = %(rae)s)"
        " OR EXISTS (SELECT 1 FROM device_session WHERE rae = %(rae)s)",
        {"rae": rae},
    ).fetchone()
    return row is not None and bool(row[0])


def audit(
    connection: Connection,
    *,
    grant: str | None = None,
    user: str | None = None,
    since: datetime | None = None,
    limit: int = 1000,
) -> list[AuditLine]:
    """The newest ``limit`` lines, oldest first."""
    rows = connection.execute(
        "SELECT at, code, grant_id, principal, actor, detail FROM access_event"
        " WHERE (%(grant)s::text IS NULL OR grant_id = %(grant)s) AND (%(user)s::text IS NULL OR principal = %(user)s)"
        " AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) ORDER BY at DESC, id DESC LIMIT %(limit)s",
        {"grant": grant, "user": user, "since": since, "limit": limit},
    ).fetchall()
    return [
        AuditLine(at=at, code=code, grant=one, principal=principal, actor=actor, detail=detail)
        for at, code, one, principal, actor, detail in reversed(rows)
    ]


def daemon(connection: Connection) -> DaemonState | None:
    """What the daemon said last; ``None``: there never was one."""
    row = connection.execute(
        "SELECT extract(epoch FROM clock_timestamp() - seen_at)::float8, problem, detail FROM access_daemon"
        " ORDER BY seen_at DESC LIMIT 1"
    ).fetchone()
    return None if row is None else DaemonState(silence_s=row[0], problem=row[1], detail=row[2])
