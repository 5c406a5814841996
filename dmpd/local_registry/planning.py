"""What becomes of one device in a transaction: a change, a checkpoint row, a ``closed``, or nothing at all. Pure."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from dmpd.local_registry.outbox import Row
from dmpd.local_registry.presence import Presence
from dmpd.local_registry.records import difference
from dmpd.local_registry.store import Commit, DeviceWrite
from dmpd.model.codec import InvalidMessageError, encode
from dmpd.model.limits import ATTRIBUTE_VALUE_BYTES_MAX, ESN_BYTES_MAX, PAYLOAD_BYTES_MAX
from dmpd.model.messages import Change, Checkpoint, Closed, ClosedReason, Event
from dmpd.model.record import DeviceRecord
from dmpd.model.strict import plain_bytes

RECORD_BYTES_MAX: Final = PAYLOAD_BYTES_MAX - 2048
"""With its numbers written out, like a message's."""

_encoder = msgspec.json.Encoder()


class Device:
    """One open device session."""

    __slots__ = (
        "cause",
        "closing",
        "epoch",
        "first_seq",
        "fresh",
        "ip",
        "presence",
        "record",
        "rev",
        "session",
        "stored",
        "successor",
        "supersedes",
        "wants_checkpoint",
    )

    def __init__(self, session: str, record: DeviceRecord, presence: Presence, *, fresh: bool = False) -> None:
        self.session = session
        self.fresh = fresh
        """Onboarded in this life: unless its first row was sent, the cloud never heard of it."""
        self.record = record
        self.stored: DeviceRecord | None = None
        """As committed with ``rev``; None until onboarding is."""
        self.rev = 0
        self.first_seq = 0
        self.epoch = 0
        """Of its latest outbox row: the first of an epoch is a checkpoint."""
        self.presence = presence
        self.ip: str | None = None
        self.cause: str | None = None
        self.closing: ClosedReason | None = None
        self.successor: str | None = None
        self.wants_checkpoint = False
        self.supersedes = False
        """The next row is a checkpoint that replaces the session's unsent rows."""


class Occasion(NamedTuple):
    """The circumstances of one transaction."""

    rae: str
    epoch: int
    at: datetime
    next_seq: Callable[[], int]
    """Gives outbox numbers, ascending."""
    loaded_through: int
    """Rows beyond it were never sent: an onboarding among them can still be taken back."""


class Planned(NamedTuple):
    """One device of a planned commit: what becomes true of it once the commit is durable."""

    device: Device
    record: DeviceRecord
    rev: int
    seq: int
    closed: ClosedReason | None
    forgotten: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, and what it means for the devices."""

    commit: Commit
    planned: list[Planned]
    events: int
    epoch: int


def plan_device(device: Device, commit: Commit, occasion: Occasion) -> Planned | None:
    """Add to ``commit`` what is new of ``device``; None = nothing is.

    Raises:
        InvalidMessageError: The cloud would refuse it; ``commit`` is as before.
    """
    if device.closing is not None:
        return _plan_close(device, commit, occasion)
    changed = None if device.stored is None else difference(device.stored, device.record)
    if changed is not None and not changed and not device.wants_checkpoint:
        return None
    record = _encoder.encode(device.record)
    if (size := plain_bytes(record)) > RECORD_BYTES_MAX:
        raise InvalidMessageError("too_large", f"record of {size} bytes")
    rev = device.rev if changed is not None and not changed else device.rev + 1
    seq = occasion.next_seq()
    message: Change | Checkpoint
    if changed is None or device.epoch != occasion.epoch or device.wants_checkpoint:
        message = Checkpoint(
            v=1,
            rae=occasion.rae,
            session=device.session,
            epoch=occasion.epoch,
            at=occasion.at,
            rev=rev,
            seq=seq,
            record=device.record,
            cause=device.cause,
        )
    else:
        message = Change(
            v=1,
            rae=occasion.rae,
            session=device.session,
            epoch=occasion.epoch,
            at=occasion.at,
            rev=rev,
            seq=seq,
            patch=changed.patch,
            unset=changed.unset,
            cause=device.cause,
        )
    commit.rows.append(row_of(message, seq))
    if device.supersedes:
        commit.superseded.append((device.session, occasion.loaded_through))
    first_seq = device.first_seq if device.stored is not None else seq if device.fresh else 0
    commit.devices.append(DeviceWrite(device.session, occasion.epoch, rev, first_seq, record))
    return Planned(device, device.record, rev, seq, None, forgotten=False)


def within_limits(record: DeviceRecord) -> DeviceRecord:
    """``record`` without what would be refused: one that an earlier version stored may be over the limits of today.

    Else no checkpoint of it would ever be sent. Returns the very object if there is nothing to take away.
    """
    esn = record.esn if record.esn is None else record.esn.encode()[:ESN_BYTES_MAX].decode(errors="ignore")
    if _plain_bytes(_encoder.encode(record)) <= ATTRIBUTE_VALUE_BYTES_MAX and esn == record.esn:
        return record
    sizes = {name: _plain_bytes(bytes(value)) for name, value in record.attributes.items()}
    kept = {name: value for name, value in record.attributes.items() if sizes[name] <= ATTRIBUTE_VALUE_BYTES_MAX}
    found = msgspec.structs.replace(record, esn=esn, attributes=kept)
    while kept and _plain_bytes(_encoder.encode(found)) > RECORD_BYTES_MAX:
        del kept[max(kept, key=sizes.__getitem__)]
    return record if found == record else found


def _plain_bytes(text: bytes) -> float:
    try:
        return plain_bytes(text)
    except InvalidMessageError:
        return math.inf


def _plan_close(device: Device, commit: Commit, occasion: Occasion) -> Planned:
    assert device.closing is not None
    assert device.stored is not None
    if device.first_seq > occasion.loaded_through:  # the cloud never heard of it: it goes without a word
        commit.forgotten.append(device.session)
        return Planned(device, device.stored, device.rev, 0, None, forgotten=True)
    seq, rev = occasion.next_seq(), device.rev + 1
    closed = Closed(
        v=1,
        rae=occasion.rae,
        session=device.session,
        epoch=occasion.epoch,
        at=occasion.at,
        rev=rev,
        seq=seq,
        reason=device.closing,
        successor=device.successor,
    )
    commit.rows.append(row_of(closed, seq))
    commit.superseded.append((device.session, occasion.loaded_through))
    at_ms = int(occasion.at.timestamp() * 1000)
    record = _encoder.encode(device.stored)
    commit.devices.append(
        DeviceWrite(device.session, occasion.epoch, rev, device.first_seq, record, device.closing, at_ms)
    )
    return Planned(device, device.stored, rev, seq, device.closing, forgotten=False)


def row_of(message: Change | Checkpoint | Closed | Event, seq: int) -> Row:
    at_ms = int(message.at.timestamp() * 1000)
    kind = type(message).__name__.lower()
    return Row(seq, message.session, kind, message.epoch, at_ms, encode(message))
