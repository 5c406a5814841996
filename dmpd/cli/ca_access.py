"""What ``dmpctl access ca`` has ``dmpd access`` do, by the database: end a connection, know a user."""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from dmpd.access import exchange
from dmpd.cli.arguments import default_operator
from dmpd.cloud_registry import migrate
from dmpd.runtime.database import Connection, DatabaseError, DatabaseUnreachableError, connect
from dmpd.runtime.settings import CaSettings, DatabaseSettings

_POLL_S: Final = 0.05
SILENT_S: Final = 120.0
"""Longer than Mosquitto leaves a connection that says nothing (95 s): one that had shown its certificate before it was
revoked, and kept its CONNECT back, would come in afterwards."""


class Place(Struct, frozen=True, kw_only=True):
    """Where the CA is, and the database by which ``dmpd access`` hears of it; ``None``: by none."""

    ca: CaSettings
    database: DatabaseSettings | None


class NotDoneError(Exception):
    """The database, or the daemon, did not do it; the text says why."""


def end_connection(settings: DatabaseSettings | None, principal: str, *, wait_s: float) -> None:
    """Have the daemon end the connection that ``principal`` may have; returns when it has. Blocks up to ``wait_s``.

    It does so once more after ``SILENT_S``, for who was at the door.

    Raises:
        NotDoneError: It is not done; once the daemon is at work again, it is if the database has it.
    """
    with _database(settings) as connection:
        exchange.ask_kick(connection, principal, by=default_operator())
        exchange.ask_kick(connection, principal, by=default_operator(), delay_s=SILENT_S)
        deadline_s = time.monotonic() + wait_s
        while exchange.kick_waits(connection, principal):
            if time.monotonic() > deadline_s:
                raise NotDoneError(f"dmpd access has not done it within {wait_s:g} s (it will once it is at work)")
            time.sleep(_POLL_S)


def make_known(settings: DatabaseSettings | None, user: str) -> None:
    """Have the broker know ``user`` before his first grant: until then he has the rights of a RAE of his name.

    Raises:
        NotDoneError: The database does not have it.
    """
    with _database(settings) as connection:
        exchange.know_user(connection, user)


@contextlib.contextmanager
def _database(settings: DatabaseSettings | None) -> Iterator[Connection]:
    if settings is None:
        raise NotDoneError("with --folder no database is asked")
    try:
        with contextlib.closing(connect(settings, application="dmpctl")) as connection:
            connection.autocommit = True
            migrate.check(connection)
            yield connection
    except (migrate.SchemaError, DatabaseUnreachableError, DatabaseError) as error:
        raise NotDoneError(str(error)) from error
