"""The RAE itself: which status is the newest, what a roster says of device sessions, and whether a RAE is reachable.

Reachability is judged when somebody asks and never written to device rows: one lost RAE is one row, not 200.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct

from dmpd.model.apply import DeviceRow, EpochRaise
from dmpd.model.messages import RaeState, Roster, Status

SILENCE_MAX: Final = timedelta(seconds=180)
"""A status comes every 60 s; a RAE that was not heard of for this long is not reachable."""

FINAL_STATES: Final[frozenset[RaeState]] = frozenset({"lost", "disconnected"})
"""What ends a run (one connection of the RAE). A RAE that returns has a new run."""


class RaeRow(Struct, frozen=True, kw_only=True):
    """What the cloud knows of one RAE."""

    rae: str
    status: Status
    heard_at: datetime | None
    """When the bridge last received a status from the RAE itself (bridge's clock); ``None``: only a retained copy."""


class StatusVerdict(Struct, frozen=True, kw_only=True):
    outcome: Literal["applied", "dropped", "lower_epoch"]
    epoch_raise: EpochRaise | None = None


def apply_status(
    row: RaeRow | None, status: Status, *, received_at: datetime, retained: bool
) -> tuple[RaeRow, StatusVerdict]:
    """Take ``status`` into the row of its RAE.

    Ordered by ``(epoch, run)``; within a run the later one is taken, unless the run has ended. A will (``lost``) and a
    ``disconnected`` end it, so that a replay or a second writer cannot bring a dead connection to life.

    Args:
        row: The stored row, ``None`` for a RAE never heard of.
        status: The message; its own ``at`` times nothing, a RAE's clock may be anywhere.
        received_at: The bridge's ``mqtt-received-at``.
        retained: The broker's stored copy, sent to a bridge that subscribed: says what was, and refreshes no time.
    """
    heard_at = None if retained else received_at
    if row is None:
        return RaeRow(rae=status.rae, status=status, heard_at=heard_at), StatusVerdict(outcome="applied")
    stored = row.status
    if status.epoch < stored.epoch:
        told = None if retained else EpochRaise(refused=status.epoch, above=stored.epoch)
        return row, StatusVerdict(outcome="lower_epoch", epoch_raise=told)
    if (status.epoch, status.run) < (stored.epoch, stored.run):
        return row, StatusVerdict(outcome="dropped")
    same_run = (status.epoch, status.run) == (stored.epoch, stored.run)
    if same_run and (retained or stored.state in FINAL_STATES) and status.state not in FINAL_STATES:
        return row, StatusVerdict(outcome="dropped")
    if heard_at is None or (row.heard_at is not None and row.heard_at > heard_at):
        heard_at = row.heard_at
    return RaeRow(rae=row.rae, status=status, heard_at=heard_at), StatusVerdict(outcome="applied")


def is_reachable(state: RaeState, heard_at: datetime | None, now: datetime) -> bool:
    """Whether a RAE of this row can be reached at ``now``; both times are UTC of the cloud's clocks."""
    return state not in FINAL_STATES and heard_at is not None and now - heard_at <= SILENCE_MAX


def is_absent_by(roster: Roster, *, session: str, epoch: int, seq: int) -> bool:
    """Whether ``roster`` says that ``session``, last heard of in outbox row ``seq`` of ``epoch``, is no longer there.

    It is judged within the roster's range only, and only if the roster is newer than what was heard: a session that
    was onboarded after the roster was made is not in it and is there.
    """
    return (
        roster.first <= session <= roster.last
        and (epoch, seq) < (roster.epoch, roster.seq_high)
        and session not in roster.sessions
    )


def apply_roster(row: DeviceRow, roster: Roster) -> DeviceRow:
    """The row after ``roster``. The next message of the session that is applied clears ``absent``; see ``apply``."""
    if row.closed is not None or row.absent or row.rae != roster.rae:
        return row
    if not is_absent_by(roster, session=row.session, epoch=row.epoch, seq=row.seq):
        return row
    return msgspec.structs.replace(row, absent=True)
