"""What an error of the database means for the records that were being written. Pure.

Nothing is judged by the database being away: only what says that *this data* cannot be stored condemns data.
"""

from typing import Literal

import psycopg

from dmpd.cloud_registry.sink import RowAppearedError
from dmpd.runtime.database import DatabaseUnreachableError

Meaning = Literal["again", "data", "wait", "unknown"]
"""``again``: the same transaction now; ``data``: take it apart; ``wait``: the same transaction after a pause;
``unknown``: like ``wait``, and worth a line in the log each time."""

_DATA_CLASSES = ("22", "54")
_DATA_STATES = ("23502", "23514", "08P01")
"""08P01 is how CockroachDB says that a message is too large."""
_WAIT_CLASSES = ("08", "40", "53", "57")


def meaning_of(error: Exception) -> Meaning:
    """What ``error``, raised while connecting or in a transaction, asks for."""
    if isinstance(error, RowAppearedError):
        return "again"
    if isinstance(error, DatabaseUnreachableError):
        return "wait"
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        # psycopg has no SQLSTATE for a lost connection, nor for what it refuses itself to send (NUL in a text).
        return "data" if isinstance(error, psycopg.DataError) else "wait"
    if state.startswith(_DATA_CLASSES) or state in _DATA_STATES:
        return "data"
    return "wait" if state.startswith(_WAIT_CLASSES) else "unknown"


def sentence(error: Exception) -> str:
    """``error`` for people, in one line, with its SQLSTATE if it has one."""
    state = getattr(error, "sqlstate", None)
    first_line = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return f"{first_line} (SQLSTATE {state})" if state else first_line
