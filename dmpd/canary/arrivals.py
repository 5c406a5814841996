"""What came to Kafka of one crowd, record by record, and what it shows beside what was sent. Pure."""

from array import array
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from dmpd.canary.history import UNANSWERED, History
from dmpd.canary.plan import Plan, rae_of, rev_of

EXAMPLES_MAX: Final = 10
_GOOD: Final = 0


class Finding:
    """How often something was found, with the first few examples to look up."""

    __slots__ = ("count", "examples")

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, example: str | Callable[[], str]) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example if isinstance(example, str) else example())


class Checked(Struct, kw_only=True):
    """What the comparison of a ``History`` with its ``Arrivals`` shows; times in seconds."""

    sent: int = 0
    acked: int = 0
    arrived: int = 0
    lost: Finding
    wrong: Finding
    reordered: Finding
    duplicates: Finding
    late: Finding
    refused: Finding
    """Publishes of a client's own messages that the broker did not take as it should."""
    unsettled: int = 0
    """Sent, not promised, not seen: of connections that broke, or of a broker that never answered."""
    puback_s: list[float]
    kafka_s: list[float]
    durable_s: list[float]


class Arrivals:
    """First occurrences by client and slot. Nothing that a record says can make it raise."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        size = plan.clients * plan.slots
        self._first_ns = array("q", bytes(8 * size))
        self._crc = array("I", [0]) * size
        self._highest = array("I", [0]) * (2 * plan.clients)
        """Highest slot seen, of each client's device session and of its RAE's own topic, plus one."""
        self.revs = array("I", [0]) * plan.clients
        """By client, in the order of ``plan.numbers``: the highest rev that came, of those before ``closed``."""
        self.wrong = Finding()
        self.reordered = Finding()
        self.duplicates = Finding()
        self.count = 0

    def note(self, number: int, slot: int, crc: int, now_ns: int, where: str) -> None:
        """A record of this run; ``where`` is its place in Kafka, for examples."""
        plan = self.plan
        if not 0 <= slot < plan.slots:
            self.wrong.add(f"{rae_of(number)} seq {slot}: never sent ({where})")
            return
        place = (number - plan.first) * plan.slots + slot
        if self._first_ns[place]:
            self.duplicates.add(f"{rae_of(number)} seq {slot} ({where})")
            if self._crc[place] != crc:
                self.wrong.add(f"{rae_of(number)} seq {slot}: comes again with another content ({where})")
            return
        self._first_ns[place] = now_ns
        self._crc[place] = crc
        self.count += 1
        if self.revs[number - plan.first] < slot < plan.event_slot:
            self.revs[number - plan.first] = slot
        topic = 2 * (number - plan.first) + (slot in (0, plan.farewell_slot))
        if slot + 1 < self._highest[topic]:
            before = self._highest[topic] - 1
            self.reordered.add(f"{rae_of(number)} seq {slot} behind {before} ({where})")
        else:
            self._highest[topic] = slot + 1

    def note_stranger(self, what: str) -> None:
        """A record under our name that is none of this run's sessions."""
        self.wrong.add(what)

    def has(self, number: int, slot: int) -> bool:
        return self._first_ns[(number - self.plan.first) * self.plan.slots + slot] > 0

    def slots_of(self, number: int) -> list[int]:
        """What came of one client, in the order of slots."""
        start = (number - self.plan.first) * self.plan.slots
        return [slot for slot in range(self.plan.slots) if self._first_ns[start + slot]]

    def closed(self) -> list[int]:
        """Clients whose ``closed`` came."""
        return [number for number in self.plan.numbers if self.has(number, self.plan.closed_slot)]

    def missing(self, history: History) -> int:
        """Promised messages that are not there yet."""
        slots, first = self.plan.slots, self.plan.first
        return sum(
            1
            for place, came_ns in enumerate(self._first_ns)
            if not came_ns and history.sent_ns[place] and history.promised(first + place // slots, place % slots)
        )

    def check(self, history: History, *, late_after_s: float) -> Checked:
        """Compare with what was sent; after the drain."""
        plan = self.plan
        found = Checked(
            lost=Finding(),
            wrong=_copy(self.wrong),
            reordered=_copy(self.reordered),
            duplicates=_copy(self.duplicates),
            late=Finding(),
            refused=Finding(),
            puback_s=[],
            kafka_s=[],
            durable_s=[],
        )
        for place, came_ns in enumerate(self._first_ns):
            number, slot = plan.first + place // plan.slots, place % plan.slots
            sent_ns = history.sent_ns[place]
            if not sent_ns:
                if came_ns:
                    found.wrong.add(f"{rae_of(number)} seq {slot}: never sent")
                continue
            found.sent += 1
            self._check_sent(found, history, place, number, slot)
            if came_ns:
                self._check_came(found, history, place, (number, slot), late_after_s)
            elif history.promised(number, slot):
                found.lost.add(_named(plan, number, slot))
            else:
                found.unsettled += 1
        return found

    @staticmethod
    def _check_sent(found: Checked, history: History, place: int, number: int, slot: int) -> None:
        sent_ns, code = history.sent_ns[place], history.code[place]
        if code == _GOOD:
            found.acked += 1
            found.puback_s.append((history.acked_ns[place] - sent_ns) / 1e9)
        elif code != UNANSWERED:
            found.refused.add(f"{rae_of(number)} seq {slot}: PUBACK 0x{code:02x}")
        if history.durable_ns[place]:
            found.durable_s.append((history.durable_ns[place] - sent_ns) / 1e9)

    def _check_came(
        self, found: Checked, history: History, place: int, named: tuple[int, int], late_after_s: float
    ) -> None:
        number, slot = named
        found.arrived += 1
        if self._crc[place] != history.crc[place]:
            found.wrong.add(f"{_named(self.plan, number, slot)}: in Kafka with another content")
        took_s = (self._first_ns[place] - history.sent_ns[place]) / 1e9
        found.kafka_s.append(took_s)
        if took_s > late_after_s:
            found.late.add(f"{_named(self.plan, number, slot)}: in Kafka after {took_s:.1f} s")


def _named(plan: Plan, number: int, slot: int) -> str:
    rev = rev_of(plan, slot)
    return f"{rae_of(number)} seq {slot}{f' rev {rev}' if rev else ''}"


def _copy(finding: Finding) -> Finding:
    made = Finding()
    made.count, made.examples = finding.count, list(finding.examples)
    return made
