"""The time by which grants start and end: the database's, carried on by the machine's boot clock. Pure.

While the database was never asked it is the machine's own clock. Later, steps of the machine's clock change nothing,
and those of the database's are followed.
"""

from datetime import datetime, timedelta
from typing import Final

ROUND_TRIP_MAX_S: Final = 0.5
"""An answer that took longer tells the time too badly, once a better one is known."""


class GrantClock:
    """``boot_s`` everywhere: CLOCK_BOOTTIME, which goes on while the machine sleeps."""

    def __init__(self, wall: datetime, boot_s: float) -> None:
        """``wall``: what the machine's clock says at ``boot_s``."""
        self._base = (wall, boot_s)  # one value: it is set on one thread and read on another
        self.is_database_time = False

    def sync(self, database_now: datetime, *, asked_s: float, answered_s: float) -> None:
        """The database said ``database_now`` between two instants of ours."""
        if self.is_database_time and answered_s - asked_s > ROUND_TRIP_MAX_S:
            return
        self._base = (database_now, (asked_s + answered_s) / 2)
        self.is_database_time = True

    def now(self, boot_s: float) -> datetime:
        base, base_s = self._base
        return base + timedelta(seconds=boot_s - base_s)
