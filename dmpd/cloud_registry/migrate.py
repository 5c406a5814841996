"""The database's schema: numbered SQL steps, forward only, each applied once however many try at the same time.

There is no advisory lock on CockroachDB, so the row of ``schema_version`` is the lock: who holds it migrates, the
others wait and then find nothing to do. ``schema/roles.sql`` says which role needs what.
"""

import logging
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from psycopg import errors

from dmpd.runtime.database import Connection

_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.1

_COLLISIONS: Final = (
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.SerializationFailure,
    errors.DeadlockDetected,
)

_log = logging.getLogger(__name__)

_VERSION_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    product text NOT NULL,
    version integer NOT NULL,
    PRIMARY KEY (product)
)"""


class SchemaError(Exception):
    """The schema is not the one that this program knows; the message says what to do."""


class Step(NamedTuple):
    """One migration: its number, from the name of its file, and its SQL."""

    number: int
    name: str
    sql: str


def steps() -> Sequence[Step]:
    """All steps that this program knows, in order, numbered without holes."""
    found = sorted(entry.name for entry in files(__package__).joinpath("schema").iterdir() if entry.name[:1].isdigit())
    known = [
        Step(int(name[:4]), name, files(__package__).joinpath("schema", name).read_text(encoding="utf-8"))
        for name in found
    ]
    assert [step.number for step in known] == list(range(1, len(known) + 1))
    return known


def migrate(connection: Connection) -> list[str]:
    """Bring the schema up to date; returns the names of the steps applied here. Safe with several at once. Blocks.

    ``connection`` is outside any transaction, and so it is afterwards.

    Raises:
        SchemaError: The database was migrated by a later dmpd.
        psycopg.Error: The database refuses (privileges), or does not answer.
    """
    connection.answer_timeout_s = None
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _migrate_once(connection)
        except _COLLISIONS:
            # Two CREATE ... IF NOT EXISTS at once collide in PostgreSQL's catalogue; the second time one of them waits.
            if attempt == _ATTEMPTS:
                raise
            _log.info("another migration runs at the same time, trying again")
            time.sleep(_PAUSE_S)
    raise AssertionError  # the last attempt returned or raised


def check(connection: Connection) -> None:
    """Refuse a database whose schema is absent, older or newer than what this program knows.

    Raises:
        SchemaError: It is; the sentence says what to do.
    """
    known = len(steps())
    try:
        with connection.transaction():
            row = connection.execute("SELECT version FROM schema_version WHERE product = 'dmpd'").fetchone()
    except errors.UndefinedTable:
        row = None
    except errors.InsufficientPrivilege as error:
        raise SchemaError(f"{str(error).strip()}: give this role what schema/roles.sql says") from error
    if row is None:
        raise SchemaError("the database has no dmpd tables: run 'dmpd migrate' first")
    if row[0] < known:
        raise SchemaError(f"the database's schema is {row[0]}, this dmpd needs {known}: run 'dmpd migrate' first")
    if row[0] > known:
        raise SchemaError(f"the database's schema is {row[0]}, this dmpd knows only {known}: install a later dmpd")


def _migrate_once(connection: Connection) -> list[str]:
    with connection.transaction():
        connection.execute(_VERSION_TABLE)
        connection.execute("INSERT INTO schema_version VALUES ('dmpd', 0) ON CONFLICT (product) DO NOTHING")
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # an index over millions of rows takes its time
        row = connection.execute("SELECT version FROM schema_version WHERE product = 'dmpd' FOR UPDATE").fetchone()
        assert row is not None
        known = steps()
        if row[0] > len(known):
            raise SchemaError(f"the database's schema is {row[0]}, this dmpd knows only {len(known)}")
        missing = known[row[0] :]
        for step in missing:
            for statement in statements(step.sql):
                connection.execute(statement.encode())
        connection.execute("UPDATE schema_version SET version = %s WHERE product = 'dmpd'", (len(known),))
    return [step.name for step in missing]


def statements(script: str) -> list[str]:
    """The single statements of ``script``; comments are whole lines, and no text in it holds a semicolon."""
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [statement.strip() for statement in code.split(";") if statement.strip()]
