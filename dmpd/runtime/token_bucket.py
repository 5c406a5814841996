"""A token bucket as pure state: how much of a rate is left now. The caller waits, and brings the time."""


class TokenBucket:
    """``burst`` at once, ``per_s`` in the long run. Begins full. ``now_s`` is monotonic; a step back counts as none.

    Invariants: ``0 <= tokens <= burst``; over any time ``t`` no more than ``burst + per_s * t`` are taken.
    """

    def __init__(self, per_s: float, *, burst: float) -> None:
        assert per_s > 0
        assert burst >= 1
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at_s: float | None = None

    def take(self, now_s: float, tokens: float = 1.0) -> bool:
        """Take ``tokens`` if there are so many. More than ``burst`` are never there."""
        self._fill(now_s)
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def _fill(self, now_s: float) -> None:
        if self._at_s is not None and now_s > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        if self._at_s is None or now_s > self._at_s:
            self._at_s = now_s
