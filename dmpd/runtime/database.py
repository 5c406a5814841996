"""Connections to PostgreSQL or CockroachDB, made here only, with every timeout against a frozen peer."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import DatabaseSettings

_SEVERAL: Final = "Multiple connection attempts failed. All failures were:"
"""psycopg's words before a line for each host."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """One whose every call ends: with what the server says, or, when it says nothing, as a lost connection."""

    answer_timeout_s: float | None = None
    """For one answer; set by ``connect``."""
    on_answer: Callable[[], None] | None = None
    """Called after each answer, in the middle of whatever is being done."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See ``psycopg``. A frozen server acknowledges packets: no timeout of TCP's ends the wait, nor of its own."""
        try:
            answer = super().wait(gen, interval=interval, timeout=timeout or self.answer_timeout_s)
        except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - psycopg has no public name for it
            self.pgconn.finish()
            raise psycopg.OperationalError("the server does not answer") from error
        if self.on_answer is not None:
            self.on_answer()
        return answer


DatabaseError = psycopg.Error
"""What a connection raises: for those who ask the database but do not own SQL."""

IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 10_000
"""A frozen zombie must not keep its row locks."""

_log = logging.getLogger(__name__)


class DatabaseUnreachableError(UnavailableError):
    """No connection; psycopg gives no SQLSTATE for it. Worth another try."""


def connect(settings: DatabaseSettings, *, application: str) -> Connection:
    """One connection, not in autocommit. Blocks up to ``connect_timeout_s`` for each address.

    Raises:
        DatabaseUnreachableError: Says where and why; never the password.
    """
    try:
        connection = Connection.connect(**_parameters(settings, application))
    except (psycopg.OperationalError, psycopg.ProgrammingError, OSError) as error:
        raise DatabaseUnreachableError(f"{describe(settings)}: {_every_answer(error)}") from error
    connection.answer_timeout_s = settings.answer_timeout_s
    if not settings.prepare:
        connection.prepare_threshold = None
    try:
        _set_timeouts(connection, settings)
    except psycopg.Error as error:
        connection.close()
        raise DatabaseUnreachableError(f"{describe(settings)}: {error}") from error
    return connection


def _every_answer(error: Exception) -> str:
    """What ``error`` says; of several hosts what each answered, in one line: it would begin with the last one's."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if _SEVERAL not in lines:
        return "\n".join(lines)
    return "; ".join(line.removeprefix("- ") for line in lines[lines.index(_SEVERAL) + 1 :])


def describe(settings: DatabaseSettings) -> str:
    """Where the database is, for messages: host, port and name."""
    try:
        found = conninfo_to_dict(settings.conninfo)
    except psycopg.ProgrammingError as error:
        return f"database (conninfo: {str(error).strip()})"
    return f"database {found.get('dbname', '')} at {found.get('host', 'localhost')}:{found.get('port', 5432)}"


def _parameters(settings: DatabaseSettings, application: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "conninfo": settings.conninfo,
        "application_name": application,
        "connect_timeout": settings.connect_timeout_s,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(settings.statement_timeout_s * 1000),
    }
    if settings.password_file is not None:
        try:
            found["password"] = Path(settings.password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise DatabaseUnreachableError(
                f"database.password_file {settings.password_file}: {error.strerror}"
            ) from error
    return found


def _set_timeouts(connection: Connection, settings: DatabaseSettings) -> None:
    connection.execute(f"SET statement_timeout = {int(settings.statement_timeout_s * 1000)}")
    connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_TIMEOUT_MS}")
    connection.commit()
    try:  # PostgreSQL >= 14: the server notices a client that died while its statement runs
        connection.execute("SET client_connection_check_interval = 5000")
        connection.commit()
    except psycopg.Error as error:  # CockroachDB, or a platform without it
        connection.rollback()
        _log.debug("client_connection_check_interval: %s", error)
