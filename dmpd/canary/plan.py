"""Who sends what, and when: all of it follows from a few numbers, so that nobody has to remember it. Pure.

Each client is a RAE with one device session. Its messages have *slots*: 0 the status ``ready``, 1 the onboarding
checkpoint, then the changes, an event, ``closed``, and last the status ``disconnected``. The slot of a message of the
device session is its ``seq``, that of a checkpoint, change or ``closed`` also its ``rev``, but for the event between.
"""

import functools
import itertools
import uuid
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Raw, Struct

from dmpd.canary.settings import Profile, Ramp
from dmpd.model.apply import DeviceRow, apply_message
from dmpd.model.codec import encode
from dmpd.model.messages import Change, Checkpoint, Closed, Event, InfoMessage, Status
from dmpd.model.record import DeviceRecord, DeviceState, Interface, RecordPatch
from dmpd.model.topics import RAE_SESSION, info_topic

EVENT_CODE: Final = "canary.note"
_KEYS: Final = 5
_STATES: Final[tuple[DeviceState, ...]] = ("online", "standby", "asleep")
_STEPS: Final = 4
_WAVES: Final = 3


class Plan(Struct, frozen=True, kw_only=True):
    """Clients ``first`` .. ``last`` of one run."""

    run: str
    """UUID."""
    seed: int
    epoch: int
    first: int
    last: int
    changes: int
    """Of each client, at most."""
    started_ms: int
    """Wall clock, Unix time: the only one that is asked; the rest is counted on by the monotonic clock."""

    @property
    def slots(self) -> int:
        return self.changes + 5

    @property
    def event_slot(self) -> int:
        return self.changes + 2

    @property
    def closed_slot(self) -> int:
        return self.changes + 3

    @property
    def farewell_slot(self) -> int:
        return self.changes + 4

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def clients(self) -> int:
        return self.last - self.first + 1

    def part(self, first: int, last: int) -> "Plan":
        """The same for some of the clients."""
        assert self.first <= first <= last <= self.last
        return Plan(
            run=self.run,
            seed=self.seed,
            epoch=self.epoch,
            first=first,
            last=last,
            changes=self.changes,
            started_ms=self.started_ms,
        )


def rae_of(number: int) -> str:
    return f"canary-{number:04}"


def number_of(rae: str) -> int:
    """The number of a canary's RAE; 0 for another name."""
    digits = rae.removeprefix("canary-")
    return int(digits) if digits != rae and digits.isascii() and digits.isdigit() else 0


@functools.lru_cache(maxsize=16_384)
def session_of(run: str, number: int) -> str:
    """The device session of a client in this run, and in no other."""
    return str(uuid.uuid5(uuid.UUID(run), str(number)))


def topic_of(plan: Plan, number: int, slot: int) -> str:
    session = RAE_SESSION if slot in (0, plan.farewell_slot) else session_of(plan.run, number)
    return info_topic(rae_of(number), session)


def rev_of(plan: Plan, slot: int) -> int:
    """The rev that the message of ``slot`` brings; 0 for one without."""
    if slot == plan.closed_slot:
        return slot - 1
    return slot if 1 <= slot < plan.event_slot else 0


def message(plan: Plan, number: int, slot: int, elapsed_ms: int) -> InfoMessage:
    """The message of a slot; ``elapsed_ms`` since the start of the run."""
    assert 0 <= slot < plan.slots
    rae, session = rae_of(number), session_of(plan.run, number)
    at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=plan.started_ms + elapsed_ms)
    if slot in (0, plan.farewell_slot):
        return Status(
            v=1,
            rae=rae,
            session=RAE_SESSION,
            at=at,
            epoch=plan.epoch,
            state="ready" if slot == 0 else "disconnected",
            run=1,
            seq_high=slot,
            version="canary",
        )
    addressed = {"v": 1, "rae": rae, "session": session, "at": at, "epoch": plan.epoch, "seq": slot}
    if slot == 1:
        return Checkpoint(**addressed, rev=1, record=_record(plan, number), cause="canary")  # type: ignore[arg-type]
    if slot == plan.event_slot:
        return Event(**addressed, code=EVENT_CODE, detail={"run": _json(plan.run)})  # type: ignore[arg-type]
    if slot == plan.closed_slot:
        return Closed(**addressed, rev=slot - 1, reason="left")  # type: ignore[arg-type]
    patch, unset = _change(plan.seed, number, slot)
    return Change(**addressed, rev=slot, patch=patch, unset=unset)  # type: ignore[arg-type]


def payload(plan: Plan, number: int, slot: int, elapsed_ms: int) -> bytes:
    return encode(message(plan, number, slot, elapsed_ms))


def expected_row(plan: Plan, number: int, slots: Sequence[int]) -> DeviceRow | None:
    """What the database must say when it has applied the messages of these slots, which are in order."""
    row: DeviceRow | None = None
    for slot in slots:
        if rev_of(plan, slot):
            row, _ = apply_message(row, message(plan, number, slot, 0))  # type: ignore[arg-type]
    return row


def ramp_offsets_s(ramp: Ramp, ramp_s: float, clients: int) -> list[float]:
    """When each client connects, from the start of the ramp."""
    if ramp == "herd":
        return [0.0] * clients
    if ramp == "step":
        return [ramp_s * (index * _STEPS // clients) / _STEPS for index in range(clients)]
    return [ramp_s * index / clients for index in range(clients)]


def flash_offsets_s(profile: Profile, flash_s: float, plan: Plan, total: int) -> Iterator[tuple[float, int, int]]:
    """``(offset_s, number, slot)`` of the flash of ``plan``'s clients, each client's in the order of its slots.

    ``total`` clients are in the whole crowd: each has a place of its own within the time between two messages.
    """
    for index, number in enumerate(plan.numbers):
        place = index / plan.clients
        for turn in range(plan.changes):
            if profile == "burst":
                offset_s = 0.0
            elif profile == "waves":
                offset_s = flash_s * (turn * _WAVES // plan.changes) / _WAVES
            else:
                offset_s = flash_s * (turn + place) / plan.changes
            yield offset_s, number, turn + 2
    assert total >= plan.clients


def probing(plan: Plan, probes: int) -> list[int]:
    """The clients that try what the broker must refuse: so many, evenly among all."""
    count = min(probes, plan.clients)
    return [plan.first + plan.clients * index // count for index in range(count)]


def shares(first: int, last: int, processes: int) -> list[tuple[int, int]]:
    """The clients ``first`` .. ``last`` divided among processes: ``(first, last)`` of each, none empty."""
    clients = last - first + 1
    count = min(processes, clients)
    bounds = [first + clients * index // count for index in range(count + 1)]
    return [(low, high - 1) for low, high in itertools.pairwise(bounds)]


def _record(plan: Plan, number: int) -> DeviceRecord:
    bits = _bits(plan.seed, number, 1)
    address = f"{bits & 0xFF:02x}:{bits >> 8 & 0xFF:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"
    return DeviceRecord(
        esn=f"CANARY-{plan.seed}-{number}",
        esn_source="canary",
        manufacturer="dmpd",
        model="canary",
        state="online",
        interfaces=(Interface(mac=f"02:ca:{address}", hostname=f"canary-{number}"),),
        attributes={"run": _json(plan.run), "k0": _json(str(bits))},
    )


def _change(seed: int, number: int, slot: int) -> tuple[RecordPatch, tuple[str, ...]]:
    bits = _bits(seed, number, slot)
    attributes = {f"k{bits % _KEYS}": _json(f"{slot}-{bits:x}"), "last": Raw(b"%d" % slot)}
    unset = (f"k{(bits + 1) % _KEYS}",) if bits >> 8 & 3 == 0 else ()
    if bits >> 12 & 1:
        return RecordPatch(attributes=attributes, state=_STATES[(bits >> 16) % len(_STATES)]), unset
    return RecordPatch(attributes=attributes, name=f"canary {bits:x}"), unset


def _bits(seed: int, number: int, slot: int) -> int:
    return zlib.crc32(b"%d %d %d" % (seed, number, slot))


def _json(text: str) -> Raw:
    return Raw(b'"' + text.encode("ascii") + b'"')
