"""What the steps of one device session do to its row: the rules of ``dmpd.model``, and what is worth remembering.

Pure. The sink calls it twice: on rows read without a lock, to leave out what changes nothing, and on locked rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from dmpd.cloud_registry.asks import Asks
from dmpd.cloud_registry.gather import Step, Unit
from dmpd.model.apply import DeviceRow, apply
from dmpd.model.fold import Foldable, fold_all, fold_of
from dmpd.model.messages import Change, Checkpoint, Closed, Event, Roster
from dmpd.model.rae import apply_roster
from dmpd.model.record import DeviceState
from dmpd.model.running import SAID_MAX, Said
from dmpd.stream.handler import Record


class EventRow(Struct, frozen=True, kw_only=True):
    """One row of ``device_event``. ``(rae, session, at, seq, code)`` is the message's own identity."""

    rae: str
    session: str
    at: datetime
    seq: int
    code: str
    epoch: int
    detail: Mapping[str, object]


class TooManyAtOnceError(Exception):
    """Give the steps of the unit in halves."""


_ONE_BY_ONE_MAX: Final = 64
"""On a busy machine a thousand took longer than the database lets a transaction idle, again at each attempt."""


class Refusal(NamedTuple):
    """A record that the model refuses, as the row is: the row would grow over its bound."""

    record: Record
    detail: str


class Decision(Struct, frozen=True, kw_only=True):
    """``row`` is the very object that was given if nothing changed; ``record`` is the last one that changed it."""

    row: DeviceRow | None
    record: Record | None
    events: Sequence[EventRow]
    refusals: Sequence[Refusal]


def decide(unit: Unit, row: DeviceRow | None, asks: Asks) -> Decision:
    """Apply the steps of ``unit`` to ``row`` (``None``: never heard of); what its RAE has to be told is in ``asks``.

    What comes together is applied as one fold; one that is refused is taken apart into its messages.

    Raises:
        TooManyAtOnceError: So many would have to be judged one by one that no row should be locked meanwhile.
    """
    events: list[EventRow] = []
    refusals: list[Refusal] = []
    run: list[Step] = []
    changed_by: Record | None = None

    # Neither calls itself: a closure in a cycle would keep the rows until the garbage collector comes, which counts
    # objects and not bytes.
    def take(steps: Sequence[Step]) -> bool:
        """False: refused as a whole, which says nothing of each."""
        nonlocal row, changed_by
        messages = [step.message for step in steps if isinstance(step.message, Foldable)]
        after, verdict = apply(row, fold_all(map(fold_of, messages)), rae=unit.rae, session=unit.session)
        if verdict.outcome == "refused" and len(steps) > 1:
            return False
        asks.take(unit.rae, verdict)
        if verdict.outcome == "refused":
            refusals.append(Refusal(steps[0].record, verdict.detail))
        if verdict.forget:
            asks.forget(unit.rae, unit.session)
        if after is not row:
            events.extend(_history(row, messages))
            row, changed_by = after, steps[-1].record
        return True

    def end_run() -> None:
        if run and not take(run):
            if len(run) > _ONE_BY_ONE_MAX:
                raise TooManyAtOnceError
            for step in run:
                take([step])
        run.clear()

    for step in unit.steps:
        message = step.message
        if isinstance(message, Foldable):
            run.append(step)
        elif isinstance(message, Event):
            events.append(event_row(message))
        elif isinstance(message, Roster):
            end_run()
            if row is not None and (after := apply_roster(row, message)) is not row:
                row, changed_by = after, step.record
    end_run()
    return Decision(row=row, record=changed_by, events=events, refusals=refusals)


def event_row(event: Event) -> EventRow:
    return EventRow(
        rae=event.rae,
        session=event.session,
        at=event.at,
        seq=event.seq or 0,
        code=event.code,
        epoch=event.epoch,
        detail=event.detail,
    )


def newest(unit: Unit) -> tuple[int, int] | None:
    """The highest ``(epoch, rev)`` of the unit; ``None`` if a stored position cannot tell that it is old."""
    highest = (0, 0)
    for _, message in unit.steps:
        if not isinstance(message, Change | Checkpoint):
            return None
        highest = max(highest, (message.epoch, message.rev))
    return highest


def _history(row: DeviceRow | None, messages: Sequence[Foldable]) -> Iterable[EventRow]:
    """State by state what the messages say beyond ``row``: also what the fold went over."""
    said: list[Said] = []
    last: DeviceState | None = None
    end: EventRow | None = None
    first = messages[0]
    reached = (row.epoch, row.rev) if row is not None else (0, 0)
    for message in messages:
        if isinstance(message, Closed):
            end = _event(message, "closed", {"reason": message.reason, "successor": message.successor})
            break
        place = (message.epoch, message.rev)
        if place < reached or (place == reached and isinstance(message, Change)):
            continue  # delivered again, within this very batch too: it says what was
        reached = place
        state = message.record.state if isinstance(message, Checkpoint) else message.patch.state
        if state is not UNSET and state != last:
            said.append((message.at, message.seq or 0, message.rev, state, message.cause))
            last, epoch = state, message.epoch
    if said:
        yield from state_event(first.rae, first.session, epoch, row.record.state if row is not None else None, said)
    if end is not None:
        yield end


def state_event(
    rae: str, session: str, epoch: int, before: DeviceState | None, said: Sequence[Said], unsaid: int = 0
) -> Iterable[EventRow]:
    """The event that tells of the states in ``said`` (no two equal ones in a row), after ``before``; none if no news.

    ``unsaid`` is how many came before those in ``said``.

    One event however many they are, because they come together only where a worker catches up. ``detail``: ``from``,
    ``to``, ``rev`` and ``cause`` of the whole; if there were states between, also ``passed``, how many there were in
    all, and ``way``, the last of them as ``[at, seq, rev, state, cause]``, oldest first, the new one included. That is
    JSON in a text: to parse such lists is a third of what updates cost the database.
    """
    if said and said[0][3] == before and not unsaid:
        said = said[1:]
    if not said:
        return
    at, seq, rev, state, cause = said[-1]
    detail: dict[str, object] = {"from": before, "to": state, "rev": rev, "cause": cause}
    if len(said) > 1:
        detail |= {"passed": unsaid + len(said), "way": msgspec.json.encode(said[-SAID_MAX:]).decode()}
    yield EventRow(rae=rae, session=session, at=at, seq=seq, code="state", epoch=epoch, detail=detail)


def _event(message: Foldable, code: str, detail: Mapping[str, object]) -> EventRow:
    return EventRow(
        rae=message.rae,
        session=message.session,
        at=message.at,
        seq=message.seq or 0,
        code=code,
        epoch=message.epoch,
        detail=detail,
    )
