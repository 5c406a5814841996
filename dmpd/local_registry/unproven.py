"""How much of what a RAE sent the broker may still hold for the bridge, and what proves that it does not. Pure.

A broker keeps whatever it acknowledged at QoS 1 until the bridge takes it, and says nothing of it. A ``durable`` tells:
the broker's queue is in order, so all that was sent before the message that it names has left the queue too. Statuses
carry *marks*, numbers that no outbox row ever has, so that a RAE whose devices are quiet has its proofs as well.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

UNPROVEN_MAX: Final = 66
"""Messages at QoS 1 without proof. ``draining``, ``disconnected`` and the will may come on top: 70 are promised."""
ASK_EACH: Final = 20
"""After so many messages that prove nothing by themselves, one that does is due."""
MARKS_FROM: Final = 1 << 52
"""Rows are numbered from 1 and never come this far; programs whose numbers are doubles can still tell marks apart."""


class Proof(NamedTuple):
    """What a ``durable`` says by its marks: up to which place all has passed, and whether one came back at QoS 0."""

    place: int = 0
    alive: bool = False


class Unproven:
    """The places, in the order of sending, of messages that no proof covers yet. At most one mark waits at QoS 0."""

    def __init__(self) -> None:
        self._held: dict[int, None] = {}
        self._marks: dict[int, tuple[int, float]] = {}
        """Of each mark: its place, 0 if it went at QoS 0, and when."""
        self.last = 0
        """The place that was given last."""
        self._number = 0
        self.unasked = 0
        """Messages since the last one that proves something."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        return len(self._held) >= UNPROVEN_MAX

    @property
    def oldest_mark_s(self) -> float | None:
        """When the oldest mark without an answer went out; None = none waits."""
        return next(iter(self._marks.values()))[1] if self._marks else None

    def sent(self, *, proves: bool) -> int:
        """One more message went at QoS 1; returns its place, 1 or more."""
        self.last += 1
        self._held[self.last] = None
        self.unasked = 0 if proves else self.unasked + 1
        return self.last

    def next_mark(self, run: int) -> int:
        """A number for a status of connection ``run``; the RAE never used it before, nor will again."""
        self._number += 1
        return MARKS_FROM + (run % (1 << 30) << 20) + self._number % (1 << 20)

    def marked(self, mark: int, place: int, now_s: float) -> None:
        """``mark`` went out with the message of ``place``; 0 = at QoS 0, which no broker keeps for an absent bridge."""
        if place == 0:
            self._marks = {number: one for number, one in self._marks.items() if one[0]}
        self._marks[mark] = place, now_s

    def refused(self, place: int) -> None:
        """The broker did not take the message."""
        self._held.pop(place, None)

    def passed(self, place: int) -> None:
        """The message of ``place`` has left the broker's queue, so all before it have."""
        for earlier in [one for one in self._held if one <= place]:
            del self._held[earlier]
        self._marks = {number: one for number, one in self._marks.items() if one[0] == 0 or one[0] > place}

    def durable(self, stored: Sequence[tuple[int, int]]) -> Proof | None:
        """Take the marks that ``stored`` names; None = it names none."""
        found = [number for number in self._marks if any(first <= number <= last for first, last in stored)]
        if not found:
            return None
        places = [self._marks.pop(number)[0] for number in found]
        self.passed(max(places))
        return Proof(max(places), alive=0 in places)

    def forget(self) -> None:
        """Whatever was sent is the broker's affair no more."""
        self._held.clear()
        self._marks.clear()
        self.unasked = 0
