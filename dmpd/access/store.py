"""The SQL of access: grants are made, ended and read here and nowhere else. PostgreSQL and CockroachDB alike.

Whoever changes something updates the one row of ``access_change`` first, in the same transaction: so two changes never
meet half way, and the daemon sees by one small read that there is something new. All instants are the database's.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from msgspec import Struct, structs

from dmpd.model.grant_queue import at_the_end, holders, moved_up
from dmpd.model.grant_request import GrantRefusedError, check_scope, check_window, check_words, said
from dmpd.model.grants import Grant, Level
from dmpd.runtime.database import Connection, DatabaseError

_ATTEMPTS: Final = 10
_PAUSE_S: Final = 0.05
_TRY_AGAIN: Final = ("40001", "40P01", "23505")
"""Serialization, deadlock, and an id that is taken (drawn anew)."""
_ID_BYTES: Final = 6

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

COLUMNS: Final = (
    "id, user_name, rae, session, level, starts_at, ends_at, created_at, granted_by, why, queued, ended_at, ended_by"
)
_LIVE: Final = f"SELECT {COLUMNS} FROM access_grant WHERE ended_at IS NULL AND ends_at > %s"  # noqa: S608 - no input
_CHANGE: Final = (
    "UPDATE access_change SET version = version + 1 WHERE what = 'access' RETURNING version, clock_timestamp()"
)
_PUT_GRANT: Final = f"INSERT INTO access_grant ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"  # noqa: S608
_PUT_EVENT: Final = (
    "INSERT INTO access_event (at, id, code, grant_id, principal, actor, detail) VALUES (%s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT DO NOTHING"
)
_DUE_KICKS: Final = "FROM access_kick WHERE asked_at <= clock_timestamp()"
_PUT_USER: Final = "INSERT INTO access_user VALUES (%s, %s) ON CONFLICT DO NOTHING"


class Wish(Struct, frozen=True, kw_only=True):
    """What somebody asks to be granted."""

    user: str
    rae: str
    session: str | None
    level: Level
    lasts: timedelta | None
    """From its start; ``None``: until ``ends_at``."""
    by: str
    why: str
    starts_at: datetime | None = None
    """``None``: now."""
    ends_at: datetime | None = None


class Event(Struct, frozen=True, kw_only=True):
    """One line of the audit."""

    at: datetime
    code: str
    actor: str
    grant: str | None = None
    principal: str | None = None
    detail: Mapping[str, Any] = {}
    id: str = ""


class Kick(Struct, frozen=True):
    """A principal whose connection shall end."""

    id: str
    principal: str
    asked_by: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """All that the daemon needs, as of one instant of the database."""

    version: int
    now: datetime
    grants: Sequence[Grant]
    """Not revoked, and not over at ``now``."""
    users: frozenset[str]
    kicks: Sequence[Kick]


class HeldByOthersError(GrantRefusedError):
    """Others command it alone in that time; ``holders`` are their grants, the one that ends last at the end."""

    def __init__(self, found: Sequence[Grant]) -> None:
        super().__init__(found)
        self.holders = found

    def __str__(self) -> str:
        told = "; ".join(
            f"{one.user} holds {one.rae}/{one.session or 'all sessions'} from {said(one.starts_at)}"
            f" until {said(one.over_at)} (grant {one.id})"
            for one in self.holders
        )
        return f"commanded by somebody else alone: {told}. --wait takes a place in the queue"


def grant(connection: Connection, wish: Wish, *, hours_max: float, wait: bool = False) -> Grant:
    """Put a grant into the database; returns it. ``wait``: behind those who hold it exclusively, if there are any.

    Raises:
        GrantRefusedError: It is not possible; nothing was changed.
        psycopg.Error: The database fails.
    """
    check_scope(wish.user, wish.rae, wish.session, wish.level)
    check_words(wish.by, wish.why)

    def put(now: datetime) -> Grant:
        wanted = _wanted(wish, now)
        check_window(wanted.starts_at, wanted.ends_at, now=now, hours_max=hours_max)
        if wanted.level == "exclusive":
            rivals = _live(connection, now, rae=wanted.rae)
            if wait:
                wanted = at_the_end(rivals, wanted)
                check_window(wanted.starts_at, wanted.ends_at, now=now, hours_max=hours_max)
            elif found := holders(rivals, wanted):
                raise HeldByOthersError(found)
        connection.execute(_PUT_GRANT, structs.astuple(wanted))
        connection.execute(_PUT_USER, (wanted.user, now))
        _note(connection, now, "queued" if wanted.queued else "granted", wanted, wish.by)
        return wanted

    return _changing(connection, put)


def revoke(connection: Connection, prefix: str, *, by: str, why: str = "") -> Grant:
    """End a grant now; those who wait for what it held move up. Returns it as it is then.

    Raises:
        GrantRefusedError: There is no such grant, there are several, or it is over.
        psycopg.Error: The database fails.
    """

    def end(now: datetime) -> Grant:
        found = _one_live(connection, prefix, now)
        ended = structs.replace(found, ended_at=now, ended_by=by)
        connection.execute("UPDATE access_grant SET ended_at = %s, ended_by = %s WHERE id = %s", (now, by, found.id))
        _note(connection, now, "revoked", ended, by, {"why": why} if why else {})
        if found.level == "exclusive":
            _move_up(connection, now, found.rae)
        return ended

    return _changing(connection, end)


def extend(
    connection: Connection,
    prefix: str,
    *,
    by: str,
    hours_max: float,
    lasts: timedelta | None = None,
    ends_at: datetime | None = None,
) -> Grant:
    """Let a grant end later: ``lasts`` after its present end, or at ``ends_at``. Returns it as it is then.

    Raises:
        GrantRefusedError: There is no such grant, it is over, it would end sooner, too late, or in another's time.
        psycopg.Error: The database fails.
    """

    def put(now: datetime) -> Grant:
        found = _one_live(connection, prefix, now)
        later = structs.replace(found, ends_at=ends_at if lasts is None else found.ends_at + lasts)
        if later.ends_at <= found.ends_at:
            raise GrantRefusedError(
                f"{found.id} ends at {said(found.ends_at)}: expected a later end (revoke ends it now)"
            )
        check_window(later.starts_at, later.ends_at, now=now, hours_max=hours_max)
        if rivals := holders(_live(connection, now, rae=found.rae), later):
            raise HeldByOthersError(rivals)
        connection.execute("UPDATE access_grant SET ends_at = %s WHERE id = %s", (later.ends_at, later.id))
        _note(connection, now, "extended", later, by, {"before": found.ends_at.isoformat()})
        return later

    return _changing(connection, put)


def ask_kick(connection: Connection, principal: str, *, by: str, delay_s: float = 0.0) -> None:
    """Have the daemon end the connection of ``principal``, whoever it is, once, ``delay_s`` from now at the earliest.

    Raises ``psycopg.Error``.
    """

    def put(now: datetime) -> None:
        due = now + timedelta(seconds=delay_s)
        connection.execute("INSERT INTO access_kick VALUES (%s, %s, %s, %s)", (_new_id(), principal, due, by))

    _changing(connection, put)


def kick_waits(connection: Connection, principal: str) -> bool:
    """Whether the daemon should have ended a connection of ``principal`` by now. Raises ``psycopg.Error``."""
    with connection.transaction():
        row = connection.execute(f"SELECT 1 {_DUE_KICKS} AND principal = %s LIMIT 1", (principal,)).fetchone()
    return row is not None


def know_user(connection: Connection, user: str) -> None:
    """Have the broker know ``user`` before his first grant. Raises ``psycopg.Error``."""
    _changing(connection, lambda now: connection.execute(_PUT_USER, (user, now)))


def kicked(connection: Connection, kicks: Sequence[str]) -> None:
    """These are done. Raises ``psycopg.Error``."""
    with connection.transaction():
        connection.execute("DELETE FROM access_kick WHERE id = ANY(%s)", (list(kicks),))


def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """Add to the audit; again is no harm. Raises ``psycopg.Error``."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_PUT_EVENT, [_event_values(event) for event in events])


def write_presence(connection: Connection, name: str, problem: str, detail: Mapping[str, Any]) -> None:
    """Say that the daemon ``name`` is at work now. Raises ``psycopg.Error``."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO access_daemon VALUES (%s, now(), %s, %s) ON CONFLICT (name) DO UPDATE"
            " SET seen_at = excluded.seen_at, problem = excluded.problem, detail = excluded.detail",
            (name, problem, json.dumps(detail)),
        )


def new_event(at: datetime, code: str, actor: str, **more: Any) -> Event:
    """An event with an id of its own, so that writing it twice is writing it once."""
    return Event(at=at, code=code, actor=actor, id=_new_id(), **more)


def version(connection: Connection) -> tuple[int, datetime]:
    """How often something was changed, and the database's clock. Raises ``psycopg.Error``."""
    with connection.transaction():
        return _version(connection)


def snapshot(connection: Connection) -> Snapshot:
    """What is granted, as of one instant. Raises ``psycopg.Error``."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        number, now = _version(connection)
        grants = _live(connection, now)
        users = connection.execute("SELECT user_name FROM access_user").fetchall()
        kicks = connection.execute(f"SELECT id, principal, asked_by {_DUE_KICKS} ORDER BY asked_at").fetchall()
    return Snapshot(
        version=number,
        now=now,
        grants=grants,
        users=frozenset(one[0] for one in users),
        kicks=[Kick(*one) for one in kicks],
    )


def _version(connection: Connection) -> tuple[int, datetime]:
    row = connection.execute("SELECT version, clock_timestamp() FROM access_change WHERE what = 'access'").fetchone()
    assert row is not None
    return row


def _wanted(wish: Wish, now: datetime) -> Grant:
    starts_at = wish.starts_at or now
    ends_at = wish.ends_at if wish.lasts is None else starts_at + wish.lasts
    if ends_at is None:
        raise GrantRefusedError("expected how long it lasts, or when it ends")
    return Grant(
        id=_new_id(),
        user=wish.user,
        rae=wish.rae,
        session=wish.session,
        level=wish.level,
        starts_at=starts_at,
        ends_at=ends_at,
        created_at=now,
        granted_by=wish.by,
        why=wish.why,
    )


def _changing(connection: Connection, act: Callable[[datetime], _T]) -> _T:
    """Run ``act`` with the database's time in a transaction that no other change of access overlaps."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with connection.transaction():
                row = connection.execute(_CHANGE).fetchone()
                if row is None:
                    raise GrantRefusedError("the database has no row in access_change: run 'dmpd migrate'")
                return act(row[1])
        except DatabaseError as error:
            if error.sqlstate not in _TRY_AGAIN or attempt == _ATTEMPTS:
                raise
            _log.info("changed by somebody else at the same time, trying again: %s", error)
            time.sleep(_PAUSE_S * attempt)
    raise AssertionError  # the last attempt returned or raised


def _move_up(connection: Connection, now: datetime, rae: str) -> None:
    for moved in moved_up(_live(connection, now, rae=rae), now):
        connection.execute(
            "UPDATE access_grant SET starts_at = %s, ends_at = %s WHERE id = %s",
            (moved.starts_at, moved.ends_at, moved.id),
        )
        _note(connection, now, "moved up", moved, "dmpd")


def _live(connection: Connection, now: datetime, *, rae: str | None = None) -> list[Grant]:
    if rae is None:
        rows = connection.execute(_LIVE, (now,)).fetchall()
    else:
        rows = connection.execute(f"{_LIVE} AND rae = %s", (now, rae)).fetchall()
    return [grant_of(row) for row in rows]


def _one_live(connection: Connection, prefix: str, now: datetime) -> Grant:
    found = grants_named(connection, prefix)
    if not found:
        raise GrantRefusedError(f"there is no grant {prefix[:60]!a}")
    if len(found) > 1:
        raise GrantRefusedError(f"several grants begin like that: {', '.join(one.id for one in found)}")
    if found[0].over_at <= now:
        raise GrantRefusedError(f"{found[0].id} ended at {said(found[0].over_at)}")
    return found[0]


def grants_named(connection: Connection, prefix: str) -> list[Grant]:
    """Grants whose id is, or begins with, ``prefix`` (of 4 letters or more); at most 20. Raises ``psycopg.Error``."""
    if not (4 <= len(prefix) <= 40 and prefix.isascii() and prefix.isalnum()):
        return []
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM access_grant WHERE id >= %s AND id < %s ORDER BY id LIMIT 20",  # noqa: S608 - no input
        (prefix, prefix + "~"),
    ).fetchall()
    return [grant_of(row) for row in rows]


def grant_of(row: Sequence[Any]) -> Grant:
    """A row of ``COLUMNS``."""
    return Grant(**dict(zip(Grant.__struct_fields__, row, strict=True)))


def _note(
    connection: Connection, now: datetime, code: str, about: Grant, actor: str, more: Mapping[str, Any] | None = None
) -> None:
    detail = {
        "rae": about.rae,
        "session": about.session,
        "level": about.level,
        "starts_at": about.starts_at.isoformat(),
        "ends_at": about.ends_at.isoformat(),
        "why": about.why,
        **(more or {}),
    }
    event = new_event(now, code, actor, grant=about.id, principal=about.user, detail=detail)
    connection.execute(_PUT_EVENT, _event_values(event))


def _event_values(event: Event) -> tuple[Any, ...]:
    return event.at, event.id, event.code, event.grant, event.principal, event.actor, json.dumps(dict(event.detail))


def _new_id() -> str:
    return secrets.token_hex(_ID_BYTES)


def announced(connection: Connection, grants: Sequence[str]) -> set[str]:
    """Those of ``grants`` whose rules the broker has, as the audit says last. Raises ``psycopg.Error``."""
    with connection.transaction():
        rows = connection.execute(
            "SELECT grant_id, code FROM access_event WHERE grant_id = ANY(%s) AND code IN ('in force', 'lost', 'ended')"
            " ORDER BY at, id",
            (list(grants),),
        ).fetchall()
    last: dict[str, str] = dict(rows)
    return {grant_id for grant_id, code in last.items() if code == "in force"}
