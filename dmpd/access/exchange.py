"""What passes between the database and ``dmpd access``: all that is granted, whom to disconnect, how the daemon is."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from dmpd.access.rows import changing, live, new_id
from dmpd.model.grants import Grant
from dmpd.runtime.database import Connection

_DUE_KICKS: Final = "FROM access_kick WHERE asked_at <= clock_timestamp()"
PUT_USER: Final = "INSERT INTO access_user VALUES (%s, %s) ON CONFLICT DO NOTHING"


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


def version(connection: Connection) -> tuple[int, datetime]:
    """How often something was changed, and the database's clock. Raises ``psycopg.Error``."""
    with connection.transaction():
        return _version(connection)


def snapshot(connection: Connection) -> Snapshot:
    """What is granted, as of one instant. Raises ``psycopg.Error``."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        number, now = _version(connection)
        grants = live(connection, now)
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


def ask_kick(connection: Connection, principal: str, *, by: str, delay_s: float = 0.0) -> None:
    """Have the daemon end the connection of ``principal``, whoever it is, once, ``delay_s`` from now at the earliest.

    Raises ``psycopg.Error``.
    """

    def put(now: datetime) -> None:
        due = now + timedelta(seconds=delay_s)
        connection.execute("INSERT INTO access_kick VALUES (%s, %s, %s, %s)", (new_id(), principal, due, by))

    changing(connection, put)


def kick_waits(connection: Connection, principal: str) -> bool:
    """Whether the daemon should have ended a connection of ``principal`` by now. Raises ``psycopg.Error``."""
    with connection.transaction():
        row = connection.execute(f"SELECT 1 {_DUE_KICKS} AND principal = %s LIMIT 1", (principal,)).fetchone()
    return row is not None


def know_user(connection: Connection, user: str) -> None:
    """Have the broker know ``user`` before his first grant. Raises ``psycopg.Error``."""
    changing(connection, lambda now: connection.execute(PUT_USER, (user, now)))


def kicked(connection: Connection, kicks: Sequence[str]) -> None:
    """These are done. Raises ``psycopg.Error``."""
    with connection.transaction():
        connection.execute("DELETE FROM access_kick WHERE id = ANY(%s)", (list(kicks),))


def write_presence(
    connection: Connection, name: str, problem: str, detail: Mapping[str, Any], *, is_recorded: bool
) -> None:
    """Say that the daemon ``name`` is at work now; ``is_recorded``: and that the audit has all that it did.

    Raises ``psycopg.Error``.
    """
    with connection.transaction():
        connection.execute(
            "INSERT INTO access_daemon (name, seen_at, problem, detail, recorded_until)"
            " VALUES (%s, now(), %s, %s, CASE WHEN %s THEN now() END) ON CONFLICT (name) DO UPDATE"
            " SET seen_at = excluded.seen_at, problem = excluded.problem, detail = excluded.detail,"
            " recorded_until = coalesce(excluded.recorded_until, access_daemon.recorded_until)",
            (name, problem, json.dumps(detail), is_recorded),
        )
