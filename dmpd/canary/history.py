"""What the clients did: per client and slot when it was sent, acknowledged and said to be durable. Pure.

Kept in flat arrays (29 bytes a message), filled by the process that owns the clients and passed on as JSON.
"""

from array import array
from collections.abc import Sequence

from msgspec import Struct

from dmpd.canary.plan import Plan

UNANSWERED = 0xFF
"""In the place of a PUBACK's reason code."""


class History:
    """Of the clients of ``plan``. Times are nanoseconds of the monotonic clock, 0 = it did not happen."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        size = plan.clients * plan.slots
        self.sent_ns = array("q", bytes(8 * size))
        self.acked_ns = array("q", bytes(8 * size))
        self.durable_ns = array("q", bytes(8 * size))
        self.code = array("B", [UNANSWERED]) * size
        self.crc = array("I", [0]) * size
        self.broken: set[int] = set()
        """Clients whose connection ended too early."""

    def place(self, number: int, slot: int) -> int:
        assert 0 <= slot < self.plan.slots
        return (number - self.plan.first) * self.plan.slots + slot

    def note_sent(self, number: int, slot: int, crc: int, now_ns: int) -> None:
        place = self.place(number, slot)
        self.sent_ns[place] = now_ns
        self.crc[place] = crc

    def note_acked(self, number: int, slot: int, code: int, now_ns: int) -> None:
        place = self.place(number, slot)
        self.acked_ns[place] = now_ns
        self.code[place] = code

    def note_durable(self, number: int, first: int, last: int, now_ns: int) -> None:
        """Rows ``first`` .. ``last`` of the outbox; those of responses, which are no slots, are left out."""
        for slot in range(first, min(last, self.plan.slots - 1) + 1):
            place = self.place(number, slot)
            if not self.durable_ns[place]:
                self.durable_ns[place] = now_ns

    def promised(self, number: int, slot: int) -> bool:
        """Whether somebody vouched for the message: ``durable``, or a good PUBACK and a connection that held.

        A PUBACK alone is no promise: the broker's memory has the message, and a RAE would send it again.
        """
        place = self.place(number, slot)
        return self.durable_ns[place] > 0 or (self.code[place] == 0 and number not in self.broken)

    def export(self) -> "HistoryPart":
        return HistoryPart(
            first=self.plan.first,
            last=self.plan.last,
            sent_ns=self.sent_ns.tolist(),
            acked_ns=self.acked_ns.tolist(),
            durable_ns=self.durable_ns.tolist(),
            code=self.code.tolist(),
            crc=self.crc.tolist(),
            broken=sorted(self.broken),
        )

    def take(self, part: "HistoryPart") -> None:
        """Take over what one process did with some of the clients."""
        start = self.place(part.first, 0)
        stop = self.place(part.last, 0) + self.plan.slots
        assert len(part.sent_ns) == stop - start
        self.sent_ns[start:stop] = array("q", part.sent_ns)
        self.acked_ns[start:stop] = array("q", part.acked_ns)
        self.durable_ns[start:stop] = array("q", part.durable_ns)
        self.code[start:stop] = array("B", part.code)
        self.crc[start:stop] = array("I", part.crc)
        self.broken.update(part.broken)


class HistoryPart(Struct, frozen=True, kw_only=True):
    """A ``History`` on its way between processes."""

    first: int
    last: int
    sent_ns: Sequence[int]
    acked_ns: Sequence[int]
    durable_ns: Sequence[int]
    code: Sequence[int]
    crc: Sequence[int]
    broken: Sequence[int]
