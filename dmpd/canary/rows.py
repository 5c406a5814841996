"""What the database says of one client, beside what it must say. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from dmpd.canary.plan import EVENT_CODE, Plan, expected_row, message, rae_of
from dmpd.model.messages import Change, Checkpoint
from dmpd.model.record import CORE_FIELDS

_STATE: Final = "state"
"""The code of the events that the Cloud Registry itself makes of changed states."""


class FoundRow(Struct, frozen=True, kw_only=True):
    """One device session as the database has it."""

    number: int
    rev: int
    stale: bool
    closed: bool
    fields: dict[str, Any]
    """The single values of the record, by name."""
    attributes: dict[str, Any] = {}
    macs: Sequence[str] = ()
    events: Sequence[tuple[int, str, Mapping[str, Any]]] = ()
    """Its rows in ``device_event``: seq, code, detail."""


def differences(plan: Plan, number: int, slots: Sequence[int], found: FoundRow | None) -> list[str]:
    """Sentences on what is wrong with ``found``, given that the messages of ``slots`` (in order) are in Kafka.

    A row of a device session that was closed already is judged by that alone.
    """
    expected = expected_row(plan, number, slots)
    name = rae_of(number)
    if expected is None:
        return [] if found is None else [f"{name}: a row, though none of its messages reached Kafka"]
    if found is None:
        return [f"{name}: no row, rev {expected.rev} expected"]
    if expected.closed is not None or found.closed:
        return [] if found.closed == (expected.closed is not None) else [f"{name}: closed is {found.closed}"]
    wrong = []
    if found.rev != expected.rev:
        wrong.append(f"rev {found.rev}, {expected.rev} expected")
    if found.stale != expected.stale:
        wrong.append(f"stale is {found.stale}")
    wrong += _content(expected.record, found)
    wrong += _events(plan, number, slots, found)
    return [f"{name}: {sentence}" for sentence in wrong]


def _events(plan: Plan, number: int, slots: Sequence[int], found: FoundRow) -> list[str]:
    """Its own event once, and one row or more that tell of every state in its order, however they were batched."""
    wrong = []
    own = [seq for seq, code, _ in found.events if code == EVENT_CODE]
    expected = [plan.event_slot] if plan.event_slot in slots else []
    if own != expected:
        wrong.append(f"events {own} of {EVENT_CODE}, {expected} expected")
    strange = sorted({code for _, code, _ in found.events} - {EVENT_CODE, _STATE})
    if strange:
        wrong.append(f"events {strange} that nobody sent")
    told = [detail for _, code, detail in sorted(found.events, key=lambda row: row[0]) if code == _STATE]
    if any(detail.get("passed", 1) > len(_states(detail)) for detail in told):
        return wrong  # so many states at once that the row says only the last of them
    states = [state for detail in told for state in _states(detail)]
    if states != (said := states_of(plan, number, slots)):
        wrong.append(f"events tell of the states {states}, {said} expected")
    return wrong


def _states(detail: Mapping[str, Any]) -> list[str]:
    """``way`` is a JSON text: a list of ``[at, seq, rev, state, cause]``."""
    way = detail.get("way")
    return [detail.get("to", "?")] if way is None else [one[3] for one in msgspec.json.decode(way)]


def states_of(plan: Plan, number: int, slots: Sequence[int]) -> list[str]:
    """The states that the messages of these slots say, one after the other."""
    said: list[str] = []
    for slot in slots:
        sent = message(plan, number, slot, 0)
        state = sent.record.state if isinstance(sent, Checkpoint) else None
        if isinstance(sent, Change) and sent.patch.state is not UNSET:
            state = sent.patch.state
        if state is not None and said[-1:] != [state]:
            said.append(state)
    return said


def _content(record: Any, found: FoundRow) -> list[str]:
    wrong = []
    for field in CORE_FIELDS:
        value = getattr(record, field)
        if found.fields.get(field) != value:
            wrong.append(f"{field} {found.fields.get(field)!r}, {value!r} expected")
    attributes = {name: msgspec.json.decode(value) for name, value in record.attributes.items()}
    wrong += [
        f"attribute {key} {found.attributes.get(key)!r}, {attributes.get(key)!r} expected"
        for key in sorted(attributes.keys() | found.attributes.keys())
        if attributes.get(key) != found.attributes.get(key)
    ]
    macs = [interface.mac for interface in record.interfaces]
    if list(found.macs) != macs:
        wrong.append(f"interfaces {list(found.macs)}, {macs} expected")
    return wrong
