"""Which messages may be acknowledged now: those up to the first one that Kafka has not confirmed. Pure.

MQTT wants PUBACKs in the order of receipt, and a packet identifier means something only on the connection it came on.
So each connection is an epoch of its own, and a confirmation of an older one acknowledges nothing: the broker delivers
that message again.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Ticket(NamedTuple):
    """Names one received message: its connection and its place in the order of receipt there."""

    epoch: int
    position: int


class _Slot(Generic[T]):
    __slots__ = ("item", "since_s", "stored")

    def __init__(self, item: T, since_s: float) -> None:
        self.item = item
        self.since_s = since_s
        self.stored = False


class AckFrontier(Generic[T]):
    """The contiguous frontier of one connection at a time. Not thread-safe; does not block."""

    def __init__(self) -> None:
        self.epoch = 0
        self._first = 0
        self._slots: deque[_Slot[T]] = deque()

    def __len__(self) -> int:
        """How many messages of this connection wait for their acknowledgement."""
        return len(self._slots)

    def new_connection(self) -> int:
        """Begin a new epoch and forget what the older one left unacknowledged; returns the epoch."""
        self.epoch += 1
        self._first = 0
        self._slots.clear()
        return self.epoch

    def received(self, item: T, now_s: float) -> Ticket:
        """Note ``item`` as the newest message of this connection."""
        self._slots.append(_Slot(item, now_s))
        return Ticket(self.epoch, self._first + len(self._slots) - 1)

    def stored(self, ticket: Ticket) -> list[T]:
        """Note that this message is safe; returns what may be acknowledged now, in the order of receipt."""
        if ticket.epoch != self.epoch:
            return []
        index = ticket.position - self._first
        assert 0 <= index < len(self._slots), "confirmed twice, or never received"
        self._slots[index].stored = True
        ready: list[T] = []
        while self._slots and self._slots[0].stored:
            ready.append(self._slots.popleft().item)
        self._first += len(ready)
        return ready

    def oldest_age_s(self, now_s: float) -> float:
        """How long the oldest unacknowledged message has waited; 0 when none does."""
        return now_s - self._slots[0].since_s if self._slots else 0.0
