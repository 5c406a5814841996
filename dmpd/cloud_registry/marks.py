"""Notices that the database went back behind what it had confirmed: restored while we ran, or failed over with a loss.

The instance counts up in a row of its own and remembers how far it is; nobody else writes there. A database that says
less than was confirmed has lost rows too, and most of them nothing doubts until their devices change.
"""

import uuid
from typing import Final, LiteralString

from dmpd.runtime.database import Connection

_ADVANCE: Final[LiteralString] = """
UPDATE registry_mark SET mark = %s, marked_at = clock_timestamp() WHERE instance = %s AND mark >= %s
"""
"""Read and written at once: a database set back in between would be written over unseen."""
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
        is_first, mark = self._confirmed == 0, self._confirmed + 1
        is_ahead = connection.execute(_ADVANCE, (mark, self._instance, self._confirmed)).rowcount > 0
        if not is_ahead:
            connection.execute(_WRITE, (self._instance, mark))
        if is_first:
            connection.execute(_OLD, (self._instance,))
        self._confirmed = mark
        return not (is_ahead or is_first)
