"""Notices that the database went back behind what it had confirmed: restored while we ran, or failed over with a loss.

The instance counts up in a row of its own and remembers how far it is; nobody else writes there. A database that says
less than was confirmed has lost rows too, and most of them nothing doubts until their devices change.
"""

import uuid
from typing import Final, LiteralString

from dmpd.runtime.database import Connection

_READ: Final[LiteralString] = "SELECT mark FROM registry_mark WHERE instance = %s"
_WRITE: Final[LiteralString] = """
INSERT INTO registry_mark (instance, mark, marked_at) VALUES (%s, %s, clock_timestamp())
ON CONFLICT (instance) DO UPDATE SET mark = excluded.mark, marked_at = excluded.marked_at
"""
_OLD: Final[LiteralString] = """
DELETE FROM registry_mark WHERE marked_at < clock_timestamp() - INTERVAL '1 day' AND instance <> %s
"""
"""Of instances that ended; one that finds its own gone counts that as a database that went back."""


class Marks:
    """Of one instance, from its start to its end."""

    def __init__(self) -> None:
        self._instance = str(uuid.uuid4())
        self._confirmed = 0

    def went_back(self, connection: Connection) -> bool:
        """Whether the database is behind what it confirmed at the last call; then count one further.

        Args:
            connection: In autocommit. What is written but not answered does not count as confirmed.
        """
        row = connection.execute(_READ, (self._instance,)).fetchone()
        is_back = (row[0] if row is not None else 0) < self._confirmed
        mark = self._confirmed + 1
        connection.execute(_WRITE, (self._instance, mark))
        if self._confirmed == 0:
            connection.execute(_OLD, (self._instance,))
        self._confirmed = mark
        return is_back
