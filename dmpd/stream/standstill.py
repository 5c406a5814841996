"""Why a partition stands still although it has room: an operator's pause, or the alarm. One per assignment; pure.

``paused``: an operator wants nothing of it fetched; what lies in its ring is still worked on.
``halted``: most of its last records were called invalid. It has no worker, nothing is fetched, what lies in its ring
stays there, until an operator says ``resume`` or ``skip``.
``skipping``: halted, and what lies in its ring is being made dead letters; then it goes on.
"""

from collections import deque
from typing import Literal

from dmpd.stream.invalid_window import InvalidWindow, Verdicts
from dmpd.stream.ledger import Stretch

State = Literal["running", "paused", "halted", "skipping"]


class Standstill:
    """Invariants: ``skipping`` and ``halted`` only with ``verdicts``; a worker only while ``running`` or ``paused``."""

    def __init__(self) -> None:
        self.window = InvalidWindow()
        self.verdicts: Verdicts | None = None
        """What halted it; set from the verdict that was one too many until ``go_on``."""
        self.is_paused = False
        """By an operator; outlasts a halt."""
        self._is_halted = False
        self._to_skip: deque[Stretch] | None = None

    @property
    def state(self) -> State:
        if self._to_skip is not None:
            return "skipping"
        if self._is_halted:
            return "halted"
        return "paused" if self.is_paused else "running"

    @property
    def holds_fetching(self) -> bool:
        return self._is_halted or self.is_paused

    @property
    def is_halted(self) -> bool:
        """Halted, or skipping: no worker may live."""
        return self._is_halted

    @property
    def is_due(self) -> bool:
        """Whether it is to be halted: its worker is to be killed, then ``halt`` called."""
        return self.verdicts is not None and not self._is_halted

    @property
    def to_skip(self) -> deque[Stretch] | None:
        """What is still to be skipped, oldest first; empty = all is; None = nobody asked."""
        return self._to_skip

    def judged(self, ordinal: int, source: bytes, *, ahead: bool = False) -> None:
        """One more record is invalid. ``ahead``: what lies before it was maybe not looked at yet."""
        if ahead:
            self.window.judged_ahead(ordinal, source)
        else:
            self.window.judged(ordinal, source)
        self._look()

    def reached(self, end: int) -> None:
        """Everything before this number was looked at."""
        self.window.reached(end)
        self._look()

    def halt(self) -> None:
        """Its worker is dead."""
        assert self.verdicts is not None
        self._is_halted = True

    def skip(self, stretches: list[Stretch]) -> None:
        assert self.state == "halted"
        self._to_skip = deque(stretches)

    def go_on(self) -> None:
        """End the halt; the window begins anew, so that the next invalid record does not halt it again."""
        self.window.clear()
        self.verdicts = None
        self._is_halted = False
        self._to_skip = None

    def inherit(self, old: "Standstill") -> None:
        """The partition was begun anew: it stands as still as before. A skip ends, for want of what it was to skip."""
        self.verdicts, self.is_paused = old.verdicts, old.is_paused
        self._is_halted = old.verdicts is not None

    def _look(self) -> None:
        if self.verdicts is None:
            self.verdicts = self.window.verdicts()
