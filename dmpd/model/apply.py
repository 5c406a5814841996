"""What messages do to the row of a device session: the pure twin of the Cloud Registry's SQL.

``(epoch, rev)`` orders a session. A row that is not ``stale`` is exactly what the RAE had at ``(epoch, rev)``; a row
that may have missed something says so, and only a checkpoint takes that back. ``closed`` is terminal.
"""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from dmpd.model.content_size import growth_refused
from dmpd.model.fold import Fold, Foldable, fold_of
from dmpd.model.messages import ClosedReason
from dmpd.model.record import DeviceRecord

Outcome = Literal["applied", "dropped", "lower_epoch", "tombstone", "refused"]


class DeviceRow(Struct, frozen=True, kw_only=True):
    """What the cloud knows of one device session. Key: ``(rae, session)``."""

    rae: str
    session: str
    epoch: int
    rev: int
    seq: int
    """Highest outbox row of ``epoch`` that was applied, 0 when none was: where a roster counts from."""
    changed_at: datetime
    """``at`` of the message that was applied last: the RAE's clock."""
    record: DeviceRecord = DeviceRecord()
    stale: bool = False
    """Something is missing: the content may be wrong until a checkpoint comes."""
    absent: bool = False
    """A roster did not list it, and nothing was heard since."""
    closed: ClosedReason | None = None
    """A tombstone: no content, outlives Kafka's retention and the oldest outbox."""
    successor: str | None = None


class EpochRaise(Struct, frozen=True, kw_only=True):
    """What the RAE is told in ``epoch.raise``: ``refused`` was its epoch, ``above`` is the one that outranks it."""

    refused: int
    above: int


class Verdict(Struct, frozen=True, kw_only=True):
    """What became of a fold, and what the RAE has to be told because of it."""

    outcome: Outcome
    epoch_raise: EpochRaise | None = None
    forget: bool = False
    """The RAE holds a session that ended here: it must close it and onboard the device anew."""
    detail: str = ""
    """Why it was ``refused``."""


def apply_message(row: DeviceRow | None, message: Foldable) -> tuple[DeviceRow | None, Verdict]:
    """Apply a single message; see ``apply``."""
    return apply(row, fold_of(message), rae=message.rae, session=message.session)


def apply(row: DeviceRow | None, fold: Fold, *, rae: str, session: str) -> tuple[DeviceRow | None, Verdict]:
    """Apply ``fold`` to ``row`` (``None``: never heard of) of the device session ``(rae, session)``.

    Returns:
        The row as it is now (the same object if nothing changed) and the verdict:

        * ``applied``: the row changed.
        * ``dropped``: known already, or a checkpoint of what the row says.
        * ``lower_epoch``: of an epoch that a higher one has outranked; ``epoch_raise`` says which.
        * ``tombstone``: the session ended; ``forget`` if the RAE shows that it holds it still.
        * ``refused``: the row would have more attributes than a row may, and not fewer than it has. A fold that is
          refused is to be applied message by message: some of them may be within the bounds.

    What attributes a row had between two messages of one fold is not judged, only what it ends with.
    """
    assert row is None or (row.rae, row.session) == (rae, session)
    if row is not None and row.closed is not None:
        return row, Verdict(outcome="tombstone", forget=fold.replace or fold.forget)
    if fold.closed is not None:
        return _closed(row, fold, rae, session), _verdict("applied", fold, forget=fold.forget)
    if row is None:
        record = _content(DeviceRecord(), fold)
        if (why := growth_refused({}, record.attributes)) is not None:
            return None, _verdict("refused", fold, detail=why)
        new = DeviceRow(
            rae=rae,
            session=session,
            epoch=fold.epoch,
            rev=fold.rev,
            seq=fold.seq,
            changed_at=fold.at,
            record=record,
            stale=not fold.is_checkpoint,
        )
        return new, _verdict("applied", fold)
    if fold.epoch < row.epoch:
        refused = max(fold.epoch, fold.refused_epoch)
        return row, Verdict(outcome="lower_epoch", epoch_raise=EpochRaise(refused=refused, above=row.epoch))
    fold = fold.narrowed(row.epoch, row.rev)
    if fold.epoch == row.epoch and (fold.rev < row.rev or (fold.rev == row.rev and not fold.is_checkpoint)):
        return row, _verdict("dropped", fold)
    record = _content(row.record, fold)
    if (fold.epoch, fold.rev) == (row.epoch, row.rev) and not (row.stale or row.absent) and record == row.record:
        return row, _verdict("dropped", fold)
    if (why := growth_refused(row.record.attributes, record.attributes)) is not None:
        return row, _verdict("refused", fold, detail=why)
    return _updated(row, fold, record), _verdict("applied", fold)


def _updated(row: DeviceRow, fold: Fold, record: DeviceRecord) -> DeviceRow:
    same_epoch = fold.epoch == row.epoch
    missed = row.stale or fold.gap or not same_epoch or row.rev < fold.base
    return msgspec.structs.replace(
        row,
        epoch=fold.epoch,
        rev=fold.rev,
        seq=max(row.seq, fold.seq) if same_epoch else fold.seq,
        changed_at=fold.at,
        record=record,
        stale=fold.gap if fold.replace else missed,
        absent=False,
    )


def _closed(row: DeviceRow | None, fold: Fold, rae: str, session: str) -> DeviceRow:
    """The slim tombstone. It keeps how far the session had come, whichever of the two knew more."""
    epoch, rev, seq = fold.epoch, fold.rev, fold.seq
    if row is not None:
        if row.epoch == epoch:
            seq = max(seq, row.seq)
        elif row.epoch > epoch:
            seq = row.seq
        epoch, rev = max((epoch, rev), (row.epoch, row.rev))
    return DeviceRow(
        rae=rae,
        session=session,
        epoch=epoch,
        rev=rev,
        seq=seq,
        changed_at=fold.at,
        closed=fold.closed,
        successor=fold.successor,
    )


def _content(record: DeviceRecord, fold: Fold) -> DeviceRecord:
    if fold.replace:
        return msgspec.structs.replace(DeviceRecord(), attributes=dict(fold.attributes), **fold.fields)
    attributes = {name: value for name, value in record.attributes.items() if name not in fold.unset}
    attributes.update(fold.attributes)
    return msgspec.structs.replace(record, attributes=attributes, **fold.fields)


def _verdict(outcome: Outcome, fold: Fold, *, forget: bool = False, detail: str = "") -> Verdict:
    """The verdict, with what was refused inside the fold already: it was outranked by the fold's own epoch."""
    refused = fold.refused_epoch
    told = EpochRaise(refused=refused, above=fold.epoch) if 0 < refused < fold.epoch else None
    return Verdict(outcome=outcome, epoch_raise=told, forget=forget, detail=detail)
