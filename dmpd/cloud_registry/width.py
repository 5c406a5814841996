"""How many sessions to write at once: as many as may be, fewer while the database refuses some. Pure."""

from typing import Final

_MIN: Final = 64
_STEP: Final = 64


class Width:
    """What is refused was work for nothing, half of it on average: where bad rows are frequent, narrow pays.

    Invariant: ``min(64, sessions_max) <= sessions <= sessions_max``.
    """

    def __init__(self, sessions_max: int) -> None:
        self._max = sessions_max
        self.sessions = sessions_max

    def refused(self, sessions: int) -> None:
        """So many together; fewer than ``self.sessions`` were a part of it, and say nothing new."""
        if sessions >= self.sessions:
            self.sessions = min(self._max, max(_MIN, self.sessions // 4))

    def written(self, sessions: int) -> None:
        """Likewise: slowly back, or the next bad row meets the full width again."""
        if sessions >= self.sessions:
            self.sessions = min(self._max, self.sessions + _STEP)
