"""Whether what comes from Kafka gathers for a moment before it is taken: pure, ``now_s`` monotonic and passed in.

A turn of the loop costs the same for one record as for ten: waking the thread, one call of the client, cold caches. So
where records follow one another quicker than ``PAUSE_S``, a turn begins no sooner than that after the one before. A
record that comes after a pause of that length is taken at once, and while there is a backlog no turn waits.
"""

from typing import Final

PAUSE_S: Final = 0.00125
"""Half of it, on average, is added to the way of a record at such rates; at 900/s a quarter of the turns is saved."""
BULK_RECORDS: Final = 100
"""Taken in one turn they are a batch already: there is a backlog, or no pause would make turns much wider."""


class Gathering:
    """Told of each turn; says before each how long to wait before anything is taken."""

    def __init__(self) -> None:
        self._took_at_s = float("-inf")
        self._is_dense = False

    def wait_s(self, now_s: float) -> float:
        """Seconds to wait, then take without waiting; 0 = none: wait for the first record, and take it at once."""
        return max(0.0, self._took_at_s + PAUSE_S - now_s) if self._is_dense else 0.0

    def took(self, now_s: float, records: int, *, waited: bool) -> None:
        """So many were taken, at ``now_s``; ``waited``: after ``wait_s``, not for the first of them."""
        is_soon = waited or now_s - self._took_at_s < PAUSE_S
        self._is_dense = is_soon and 0 < records < BULK_RECORDS
        self._took_at_s = now_s
