"""What an error of the database means for the work that met it: the table of SQLSTATEs. Pure.

Nothing is judged by the database being away: only what says that *this data* cannot be stored, or what keeps happening
to one record while the database takes other writes, condemns data. What each meaning leads to is in ``trial``.
"""

from typing import Final, Literal

import psycopg

from dmpd.cloud_registry.sink import RowAppearedError
from dmpd.runtime.database import DatabaseUnreachableError

Meaning = Literal["again", "conflict", "away", "read_only", "slow", "refused", "plan", "doubtful", "lost", "halt"]
"""``again``: the same transaction now. ``conflict``: another transaction was in the way, the whole one once more.
``away``: the server cannot, whoever asks. ``read_only``: this server does not write, a new connection may find one that
does. ``slow``: cancelled for its time. ``refused``: this data cannot be stored. ``plan``: the connection's prepared
statements are out of date. ``doubtful``: the data's fault, or not. ``lost``: the connection broke while the work was on
it. ``halt``: a person must do something."""

STATES: Final[dict[str, Meaning]] = {
    "08P01": "refused",  # how CockroachDB says that a message is too large
    "0A000": "plan",  # "cached plan must not change result type"
    "23502": "refused",
    "23514": "refused",
    "25006": "read_only",
    "25P03": "away",  # idle in a transaction for too long: this process was frozen
    "26000": "plan",  # the prepared statement is on another server of a pool
    "42P05": "plan",  # or already there, left by another client of it
    "57014": "slow",
    "55P03": "slow",
}
"""Wins over ``CLASSES``."""

CLASSES: Final[dict[str, Meaning]] = {
    "08": "away",
    "22": "refused",
    "40": "conflict",
    "42": "halt",
    "53": "away",
    "54": "refused",
    "57": "away",
}
"""By the first two characters; all others are ``doubtful``: 23503, 23505, XX (CockroachDB says XXUUU of a bad uuid)…"""


def meaning_of(error: Exception) -> Meaning:
    """What ``error``, raised while connecting or in a transaction, asks for."""
    if isinstance(error, RowAppearedError):
        return "again"
    if isinstance(error, DatabaseUnreachableError):
        return "away"
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is not None:
        return STATES.get(state) or CLASSES.get(state[:2], "doubtful")
    # psycopg has no SQLSTATE for a connection that broke, nor for what it refuses itself to send (NUL in a text).
    if isinstance(error, psycopg.DataError):
        return "refused"
    return "lost" if isinstance(error, psycopg.OperationalError) else "doubtful"


def sentence(error: Exception) -> str:
    """``error`` for people, in one line, with its SQLSTATE if it has one."""
    state = getattr(error, "sqlstate", None)
    first_line = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return f"{first_line} (SQLSTATE {state})" if state else first_line
