"""How old what lies in a ring is: pure. One ``Ages`` per assignment, an entry per round in which something was placed.

Two ages: since a record was written to Kafka (its timestamp; wall clock), and since it was placed (monotonic).
"""

from collections import deque
from typing import NamedTuple


class _Round(NamedTuple):
    end: int
    written_ms: int
    placed_at_s: float


class Ages:
    """Exact to the records of one round of the parent (40 ms): the first stands for all, from the round's end on."""

    def __init__(self) -> None:
        self._rounds: deque[_Round] = deque()
        self._first_ms: int | None = None

    def put(self, written_ms: int) -> None:
        """A frame was placed whose first record has this timestamp (milliseconds; not positive = it has none)."""
        if self._first_ms is None:
            self._first_ms = written_ms

    def note(self, now_s: float, *, published: int, passed: int) -> None:
        """End of a round: what was ``put`` lies before ``published``; the frontier has reached ``passed``."""
        if self._first_ms is not None:
            self._rounds.append(_Round(published, self._first_ms, now_s))
            self._first_ms = None
        while self._rounds and self._rounds[0].end <= passed:
            self._rounds.popleft()

    def since_written_s(self, now_s: float, wall_s: float) -> float | None:
        """Age of the oldest record that the frontier has not passed; None = there is none in the ring.

        Without a timestamp, and at least, the time since it was placed: clocks of producers may be ahead of ours.
        """
        if not self._rounds:
            return None
        oldest = self._rounds[0]
        in_ring_s = max(0.0, now_s - oldest.placed_at_s)
        return max(in_ring_s, wall_s - oldest.written_ms / 1000) if oldest.written_ms > 0 else in_ring_s

    def since_placed_s(self, now_s: float, released: int) -> float | None:
        """How long the oldest record behind the position ``released`` has been in the ring; None = there is none."""
        for one in self._rounds:
            if one.end > released:
                return max(0.0, now_s - one.placed_at_s)
        return None
