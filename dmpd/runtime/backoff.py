"""Backoff as pure state: how long to wait before the next attempt. The caller waits."""

from collections.abc import Callable


class Backoff:
    """Doubling delays from ``first_s`` to ``max_s``, each shortened at random by up to ``jitter`` of itself.

    ``random`` yields numbers in [0, 1): passed in, so that tests and simulations decide it.
    """

    def __init__(self, first_s: float, max_s: float, *, random: Callable[[], float], jitter: float = 0.5) -> None:
        assert 0 < first_s <= max_s
        assert 0 <= jitter <= 1
        self._first_s = first_s
        self._max_s = max_s
        self._random = random
        self._jitter = jitter
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """Attempts since the start or the last ``reset``."""
        return self._attempts

    def next_s(self) -> float:
        """Seconds to wait before the next attempt; counts it."""
        delay_s = min(self._max_s, self._first_s * 2.0 ** min(self._attempts, 60))
        self._attempts += 1
        return delay_s * (1 - self._jitter * self._random())

    def reset(self) -> None:
        """It worked: begin again with the shortest delay."""
        self._attempts = 0
