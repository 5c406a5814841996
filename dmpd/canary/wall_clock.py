"""Another's wall clock in terms of our monotonic one, and whether it was stepped. Pure."""

from typing import Final

_TOLERANCE_S: Final = 0.1
"""A step of less does no harm here."""
_SLEW: Final = 0.001
"""Seconds a second: a clock that is being slewed (0.5 ms a second) is not called stepped, however long that goes on."""


class WallClock:
    """Knows between which bounds the wall clock is ahead, from asking it between two looks at the monotonic clock.

    A slow answer makes the bounds wide, never wrong: what is no step is never taken for one.
    """

    def __init__(self) -> None:
        self.said_s: float | None = None
        """What it said last, Unix time."""
        self.stepped_s: float | None = None
        """When a step was noticed last, monotonic."""
        self._ahead_s = (0.0, 0.0)
        self._noted_s = 0.0

    def note(self, said_s: float, before_s: float, after_s: float) -> None:
        """It said this between two instants of the monotonic clock."""
        assert before_s <= after_s
        low_s, high_s = said_s - after_s, said_s - before_s
        if self.said_s is not None:
            slewed_s = _SLEW * (after_s - self._noted_s)
            known_low_s, known_high_s = self._ahead_s[0] - slewed_s, self._ahead_s[1] + slewed_s
            if low_s > known_high_s + _TOLERANCE_S or high_s < known_low_s - _TOLERANCE_S:
                self.stepped_s = after_s
            elif low_s <= known_high_s and known_low_s <= high_s:
                low_s, high_s = max(low_s, known_low_s), min(high_s, known_high_s)
        self.said_s, self._ahead_s, self._noted_s = said_s, (low_s, high_s), after_s

    def monotonic_s(self, wall_s: float) -> float:
        """The monotonic second of an instant of the wall clock, if that was not stepped between then and now."""
        return wall_s - sum(self._ahead_s) / 2
