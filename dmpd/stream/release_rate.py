"""How fast a worker releases what it is given: pure. One ``ReleaseRate`` per assignment, ``now_s`` monotonic.

It decides how much may lie in the ring so that a drain fits its deadline, so it must not be fooled: time counts only
while the worker has records and its sink answers, only from release to release (a worker in one long batch has no rate
yet, it is not slow), and a batch of a few records, which says more of a sink's latency than of its speed, may raise
what is known but never lower it.
"""

import math
from typing import Final

_MEMORY_S: Final = 10.0
"""Seconds of work over which the rate is smoothed; one batch weighs no more, however long it took."""
_SMALL_BATCH_MIN_S: Final = 0.001
"""A batch that seems quicker tells of the parent's clock, not of the worker."""
_CREDIT_MAX_S: Final = 1.0
"""A look credits at most this, so that a frozen parent (SIGSTOP, suspend) calls no worker slow."""


class _Mean:
    """Bytes per second of work, weighted by time, older work the less."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0

    def add(self, released_bytes: int, busy_s: float) -> None:
        weight_s = min(busy_s, _MEMORY_S)
        decay = math.exp(-weight_s / _MEMORY_S)
        self._bytes = self._bytes * decay + released_bytes * weight_s / busy_s
        self._seconds = self._seconds * decay + weight_s

    @property
    def value(self) -> float | None:
        return self._bytes / self._seconds if self._seconds > 0 else None


class ReleaseRate:
    """Told of the ring whenever something was placed or released, and at every look."""

    def __init__(self, plenty_bytes: int) -> None:
        """``plenty_bytes``: with at least that before it a worker's batch is no longer small."""
        self._plenty_bytes: Final = plenty_bytes
        self._under_load = _Mean()
        self._at_least: float | None = None
        """The best of small batches since the last one under load."""
        self._released = 0
        self._seen_at_s: float | None = None
        self._is_working = False
        """Whether the worker has had records and answered all the time since its last release, or since it began."""
        self._had_plenty = False
        self._busy_s = 0.0

    @property
    def bytes_per_s(self) -> float | None:
        """None = nothing was released yet."""
        known = [mean for mean in (self._under_load.value, self._at_least) if mean is not None]
        return max(known) if known else None

    @property
    def is_floor(self) -> bool:
        """Nothing but small batches is known yet: the worker is at least so fast."""
        return self._under_load.value is None

    def note(self, now_s: float, *, released: int, open_bytes: int, works: bool) -> bool:
        """Take the state of the ring; returns whether the rate is another now.

        Args:
            released: Position up to which the worker is done; only grows.
            open_bytes: What lies behind it.
            works: There is a worker and it does not wait for its sink.
        """
        passed_s = 0.0 if self._seen_at_s is None else min(_CREDIT_MAX_S, now_s - self._seen_at_s)
        self._seen_at_s = now_s
        self._busy_s += passed_s
        is_news = False
        if released > self._released:
            is_news = self._is_working and self._busy_s > 0
            if is_news:
                self._take(released - self._released)
            self._released = released
            self._is_working = False
        if not works or not open_bytes:
            self._is_working = False
        elif not self._is_working:
            self._is_working = True
            self._had_plenty = open_bytes >= self._plenty_bytes
            self._busy_s = 0.0
        return is_news

    def _take(self, released_bytes: int) -> None:
        if self._had_plenty:
            self._under_load.add(released_bytes, self._busy_s)
            self._at_least = None
        else:
            rate = released_bytes / max(self._busy_s, _SMALL_BATCH_MIN_S)
            self._at_least = max(rate, self._at_least or 0.0)
