"""Grants are made, ended and extended here and nowhere else: one transaction each, with its line of the audit."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, structs

from dmpd.access.audit import note
from dmpd.access.exchange import PUT_USER
from dmpd.access.rows import COLUMNS, changing, grant_of, live, new_id
from dmpd.model.grant_queue import at_the_end, holders, moved_up
from dmpd.model.grant_request import GrantRefusedError, check_scope, check_window, check_words, said
from dmpd.model.grants import Grant, Level
from dmpd.runtime.database import Connection

_PUT_GRANT: Final = f"INSERT INTO access_grant ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"  # noqa: S608


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
            rivals = live(connection, now, rae=wanted.rae)
            if wait:
                wanted = at_the_end(rivals, wanted)
                check_window(wanted.starts_at, wanted.ends_at, now=now, hours_max=hours_max)
            elif found := holders(rivals, wanted):
                raise HeldByOthersError(found)
        connection.execute(_PUT_GRANT, structs.astuple(wanted))
        connection.execute(PUT_USER, (wanted.user, now))
        note(connection, now, "queued" if wanted.queued else "granted", wanted, wish.by)
        return wanted

    return changing(connection, put)


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
        note(connection, now, "revoked", ended, by, {"why": why} if why else {})
        if found.level == "exclusive":
            _move_up(connection, now, found.rae)
        return ended

    return changing(connection, end)


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
        if rivals := holders(live(connection, now, rae=found.rae), later):
            raise HeldByOthersError(rivals)
        connection.execute("UPDATE access_grant SET ends_at = %s WHERE id = %s", (later.ends_at, later.id))
        note(connection, now, "extended", later, by, {"before": found.ends_at.isoformat()})
        return later

    return changing(connection, put)


def grants_named(connection: Connection, prefix: str) -> list[Grant]:
    """Grants whose id is, or begins with, ``prefix`` (of 4 letters or more); at most 20. Raises ``psycopg.Error``."""
    if not (4 <= len(prefix) <= 40 and prefix.isascii() and prefix.isalnum()):
        return []
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM access_grant WHERE id >= %s AND id < %s ORDER BY id LIMIT 20",  # noqa: S608 - no input
        (prefix, prefix + "~"),
    ).fetchall()
    return [grant_of(row) for row in rows]


def _wanted(wish: Wish, now: datetime) -> Grant:
    starts_at = wish.starts_at or now
    ends_at = wish.ends_at if wish.lasts is None else starts_at + wish.lasts
    if ends_at is None:
        raise GrantRefusedError("expected how long it lasts, or when it ends")
    return Grant(
        id=new_id(),
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


def _move_up(connection: Connection, now: datetime, rae: str) -> None:
    for moved in moved_up(live(connection, now, rae=rae), now):
        connection.execute(
            "UPDATE access_grant SET starts_at = %s, ends_at = %s WHERE id = %s",
            (moved.starts_at, moved.ends_at, moved.id),
        )
        note(connection, now, "moved up", moved, "dmpd")


def _one_live(connection: Connection, prefix: str, now: datetime) -> Grant:
    found = grants_named(connection, prefix)
    if not found:
        raise GrantRefusedError(f"there is no grant {prefix[:60]!a}")
    if len(found) > 1:
        raise GrantRefusedError(f"several grants begin like that: {', '.join(one.id for one in found)}")
    if found[0].over_at <= now:
        raise GrantRefusedError(f"{found[0].id} ended at {said(found[0].over_at)}")
    return found[0]
