"""When a worker is stuck: pure. One ``Watchdog`` per worker life, asked each turn, ``now_s`` monotonic.

A turn credits at most one second, so that a parent which was frozen itself (SIGSTOP, suspend) accuses nobody.
"""

from typing import Final

from dmpd.stream.frames import Position

_CREDIT_MAX_S: Final = 1.0


class Watchdog:
    """Stuck = fed and without release for ``stuck_s``; after it said that it waits for its sink, silent for longer."""

    def __init__(self, *, stuck_s: float, sink_silence_s: float) -> None:
        self._stuck_s: Final = stuck_s
        self._sink_silence_s: Final = sink_silence_s
        self._quiet_s = 0.0
        self._seen_at_s: float | None = None
        self._released: Position | None = None
        self.is_waiting = False
        """It said that it waits for its sink, and has released nothing since."""

    def said_waiting(self) -> None:
        """It tries its sink once more: time begins anew."""
        self.is_waiting = True
        self._quiet_s = 0.0

    def is_stuck(self, now_s: float, *, fed: bool, released: Position) -> bool:
        """``fed``: it has something to do and we listen to it (not while its words wait for the broker)."""
        passed_s = 0.0 if self._seen_at_s is None else min(_CREDIT_MAX_S, now_s - self._seen_at_s)
        self._seen_at_s = now_s
        if released != self._released:
            self._released = released
            self.is_waiting = False
            self._quiet_s = 0.0
        elif fed:
            self._quiet_s += passed_s
        else:
            self._quiet_s = 0.0
        return self._quiet_s > (self._sink_silence_s if self.is_waiting else self._stuck_s)
