"""Which messages may be acknowledged now: those up to the first one that Kafka has not confirmed. Pure.

MQTT wants PUBACKs in the order of receipt, and a packet identifier means something only on the connection it came on.
So each connection is an epoch of its own, and a confirmation of an older one acknowledges nothing: the broker delivers
that message again.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ticket(Generic[T]):
    """Stands for one received message; only ``AckFrontier`` makes it and looks into it."""

    __slots__ = ("epoch", "item", "since_s", "stored")

    def __init__(self, epoch: int, item: T, since_s: float) -> None:
        self.epoch = epoch
        self.item = item
        self.since_s = since_s
        self.stored = False


class AckFrontier(Generic[T]):
    """The contiguous frontier of one connection at a time. Not thread-safe; does not block."""

    def __init__(self) -> None:
        self.epoch = 0
        self._waiting: deque[Ticket[T]] = deque()

    def __len__(self) -> int:
        """How many messages of this connection wait for their acknowledgement."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket[T]]:
        """Those, oldest first; some may be stored already."""
        return iter(self._waiting)

    def new_connection(self) -> int:
        """Begin a new epoch and forget what the older one left unacknowledged; returns the epoch."""
        self.epoch += 1
        self._waiting.clear()
        return self.epoch

    def received(self, item: T, now_s: float) -> Ticket[T]:
        """Note ``item`` as the newest message of this connection."""
        ticket = Ticket(self.epoch, item, now_s)
        self._waiting.append(ticket)
        return ticket

    def stored(self, ticket: Ticket[T]) -> list[T]:
        """Note that this message is safe; returns what may be acknowledged now, in the order of receipt."""
        assert not ticket.stored, "confirmed twice"
        ticket.stored = True
        if ticket.epoch != self.epoch:
            return []
        ready: list[T] = []
        waiting = self._waiting
        while waiting and waiting[0].stored:
            ready.append(waiting.popleft().item)
        return ready

    def oldest_age_s(self, now_s: float) -> float:
        """How long the oldest unacknowledged message has waited; 0 when none does."""
        return now_s - self._waiting[0].since_s if self._waiting else 0.0
