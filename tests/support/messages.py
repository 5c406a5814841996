"""Builders of messages: everything that a test does not care about has a value."""

from datetime import UTC, datetime

from dmpd.model.messages import Change, Checkpoint, Closed
from dmpd.model.record import DeviceRecord, RecordPatch

RAE = "RAE-7"
EPOCH = 1_764_043_200_000
AT = datetime(2026, 11, 25, 4, 0, 0, 123_000, tzinfo=UTC)


def session_id(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


SESSION = session_id(1)


def change(rev, *, epoch=EPOCH, patch=None, unset=(), seq=None, cause=None, session=SESSION):
    return Change(
        v=1,
        rae=RAE,
        session=session,
        at=AT,
        epoch=epoch,
        rev=rev,
        seq=seq,
        patch=RecordPatch() if patch is None else patch,
        unset=unset,
        cause=cause,
    )


def checkpoint(rev, record=None, *, epoch=EPOCH, seq=None, session=SESSION):
    record = DeviceRecord() if record is None else record
    return Checkpoint(v=1, rae=RAE, session=session, at=AT, epoch=epoch, rev=rev, seq=seq, record=record)


def closed(rev, *, epoch=EPOCH, seq=None, reason="left", session=SESSION):
    return Closed(v=1, rae=RAE, session=session, at=AT, epoch=epoch, rev=rev, seq=seq, reason=reason)
