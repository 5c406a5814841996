"""Rows of access: how one is read, and the one way to change them. PostgreSQL and CockroachDB alike.

Whoever changes something updates the one row of ``access_change`` first, in the same transaction: so two changes never
meet half way, and the daemon sees by one small read that there is something new. All instants are the database's.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from dmpd.model.grant_request import GrantRefusedError
from dmpd.model.grants import Grant
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


def changing(connection: Connection, act: Callable[[datetime], _T]) -> _T:
    """Run ``act`` with the database's time in a transaction that no other change of access overlaps; it may run again.

    Raises:
        GrantRefusedError: ``act`` refuses, or the tables are not there.
        psycopg.Error: The database fails.
    """
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


def live(connection: Connection, now: datetime, *, rae: str | None = None) -> list[Grant]:
    """Grants (of ``rae``) that are not revoked, and not over at ``now``. Raises ``psycopg.Error``."""
    if rae is None:
        rows = connection.execute(_LIVE, (now,)).fetchall()
    else:
        rows = connection.execute(f"{_LIVE} AND rae = %s", (now, rae)).fetchall()
    return [grant_of(row) for row in rows]


def grant_of(row: Sequence[Any]) -> Grant:
    """A row of ``COLUMNS``."""
    return Grant(**dict(zip(Grant.__struct_fields__, row, strict=True)))


def new_id() -> str:
    return secrets.token_hex(_ID_BYTES)
