"""When the client has silently stopped fetching a partition: pure. One ``FetchWatch`` per partition, across resets.

It happens after rebalances and trouble with brokers (librdkafka#5591); no error tells, and only a restart used to help.
"""

from typing import Final, Literal

_CREDIT_MAX_S: Final = 1.0
"""A look credits at most this, so that a parent which was frozen itself (SIGSTOP, suspend) blames nobody."""

Cure = Literal["reset", "reassign"]


class FetchWatch:
    """Stopped = there is something to fetch, it is not paused, and for ``timeout_s`` the fetch position did not grow.

    Judged by the client's fetch position, not the application's: that one stands still at control records. First cure
    ``reset``, the second time at the same position ``reassign``; then it is left alone until the end of the log moves.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s: Final = timeout_s
        self._quiet_s = 0.0
        self._seen_at_s: float | None = None
        self._reached: tuple[int, int] = (-1, -1)
        self._stopped_at = -1
        self._cures = 0
        self._end_at_cure = -1

    def look(
        self, now_s: float, *, end: int | None, position: int | None, placed: int | None, paused: bool
    ) -> Cure | None:
        """What is to be done now; None = nothing.

        Args:
            now_s: Monotonic.
            end: End of the log by a query that was answered just now; None = it was not: nobody is blamed meanwhile.
            position: Next offset that the client fetches; None = it has none.
            placed: Next offset that is expected to be placed; None = any.
            paused: By us, for whatever reason.
        """
        passed_s = 0.0 if self._seen_at_s is None else min(_CREDIT_MAX_S, now_s - self._seen_at_s)
        self._seen_at_s = now_s
        before = self._reached
        self._reached = (-1 if position is None else position, -1 if placed is None else placed)
        has_moved = self._reached[0] > before[0] or self._reached[1] > before[1]
        fetched = max(self._reached) if position is None else position
        if end is None or end <= fetched or paused or has_moved:
            self._quiet_s = 0.0
            return None
        self._quiet_s += passed_s
        if self._quiet_s <= self._timeout_s:
            return None
        return self._cure(fetched, end)

    def _cure(self, fetched: int, end: int) -> Cure | None:
        if fetched > self._stopped_at or (self._cures > 1 and end != self._end_at_cure):
            self._stopped_at, self._cures = fetched, 0
        if self._cures > 1:
            return None
        self._cures += 1
        self._quiet_s = 0.0
        self._end_at_cure = end
        return "reset" if self._cures == 1 else "reassign"
