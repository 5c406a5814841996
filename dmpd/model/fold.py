"""Folding: many messages of one device session become one, which is applied to the row once.

Here is what the messages say together; what that does to a row is in ``apply``. One ``Fold`` covers the revisions
``(base, rev]`` of one epoch. Changes carry final values, so folding is keeping the later value; the only ways to be
wrong are a missing revision in between (``gap``) and an order that is not (another epoch, an older revision).
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct

from dmpd.model.messages import Change, Checkpoint, Closed, ClosedReason
from dmpd.model.record import CORE_FIELDS, DeviceRecord, RecordPatch

Foldable = Change | Checkpoint | Closed

RECORD_FIELDS: Final = (*CORE_FIELDS, "interfaces")
"""Fields of a record that a message replaces whole; ``attributes`` are merged by key."""


class Fold(Struct, frozen=True, kw_only=True):
    """What one or more messages of one device session say together.

    Invariants: ``0 <= base < rev``; ``replace`` → every field is in ``fields``, ``unset`` is empty; ``closed`` → no
    content; ``tail`` is set exactly when ``gap`` is.
    """

    epoch: int
    rev: int
    base: int
    """The revision this builds on: ``rev - 1`` on the wire, smaller after folding."""
    seq: int
    """Highest outbox row of ``epoch`` among the messages, 0 when none was an outbox row."""
    at: datetime
    replace: bool = False
    """A checkpoint is in it: the content is complete. Without ``gap`` it *is* a checkpoint of ``rev``."""
    gap: bool = False
    """A revision between ``base`` and ``rev`` is missing."""
    fields: Mapping[str, object] = {}
    """Final values by name, of ``RECORD_FIELDS``."""
    attributes: Mapping[str, Raw] = {}
    unset: Collection[str] = frozenset()
    """Attributes that end; disjoint from ``attributes``."""
    closed: ClosedReason | None = None
    successor: str | None = None
    forget: bool = False
    """A checkpoint came after ``closed``: the RAE still holds a session that ended."""
    refused_epoch: int = 0
    """Highest epoch of a message that was refused for a higher one before it, 0 for none."""
    tail: "Fold | None" = None
    """What came after the last gap, for a row that has the missing revisions already."""

    @property
    def is_checkpoint(self) -> bool:
        """Whether this is the complete and true content as of ``rev``."""
        return self.replace and not self.gap

    def narrowed(self, epoch: int, rev: int) -> "Fold":
        """What of this fold is left to say to a row at ``(epoch, rev)``: the tail, if the row needs no more.

        A redelivered old change and a new one in one batch look like a gap, and are none for a row that stands between.
        """
        if self.tail is not None and self.epoch == epoch and self.tail.base <= rev:
            return msgspec.structs.replace(self.tail, refused_epoch=self.refused_epoch)
        return self


def fold_of(message: Foldable) -> Fold:
    """What one message says."""
    seq = message.seq or 0
    if isinstance(message, Change):
        return Fold(
            epoch=message.epoch,
            rev=message.rev,
            base=message.rev - 1,
            seq=seq,
            at=message.at,
            fields=_fields_of(message.patch),
            attributes={} if message.patch.attributes is UNSET else message.patch.attributes,
            unset=frozenset(message.unset),
        )
    if isinstance(message, Checkpoint):
        return Fold(
            epoch=message.epoch,
            rev=message.rev,
            base=message.rev - 1,
            seq=seq,
            at=message.at,
            replace=True,
            fields=_fields_of(message.record),
            attributes=message.record.attributes,
        )
    return Fold(
        epoch=message.epoch,
        rev=message.rev,
        base=message.rev - 1,
        seq=seq,
        at=message.at,
        closed=message.reason,
        successor=message.successor,
    )


def fold_all(folds: Iterable[Fold]) -> Fold:
    """Fold one or more, oldest first."""
    first, *rest = folds
    for later in rest:
        first = fold(first, later)
    return first


def fold(a: Fold, b: Fold) -> Fold:
    """``a`` then ``b`` of the same device session; applying the result is applying one after the other.

    Equal in all but two things, both on the safe side: content of a row that stays stale may differ, and a gapless fold
    that holds a checkpoint heals a stale or absent row even where that checkpoint alone came too late to.
    """
    refused = max(a.refused_epoch, b.refused_epoch)
    if a.closed is not None:
        return _with(a, refused=refused, forget=a.forget or b.replace or b.forget)
    if b.closed is not None:
        return _closed(a, b, refused)
    if b.epoch < a.epoch:
        return _with(a, refused=max(refused, b.epoch))
    if b.epoch > a.epoch:
        return _with(b, refused=refused)
    b = b.narrowed(a.epoch, a.rev)
    if b.rev < a.rev or (b.rev == a.rev and not b.is_checkpoint):
        return _with(a, refused=refused)
    if b.replace:
        return _with(b, refused=refused, seq=max(a.seq, b.seq))  # a periodic checkpoint is no outbox row: seq 0
    return _merged(a, b, refused)


def _merged(a: Fold, b: Fold, refused: int) -> Fold:
    """``b`` continues ``a`` in one epoch, with or without a gap between."""
    gap_between = b.base > a.rev
    if b.gap:
        tail = b.tail
    elif gap_between:
        tail = b
    else:
        tail = None if a.tail is None else _merged(a.tail, b, 0)
    attributes = {name: value for name, value in a.attributes.items() if name not in b.unset}
    attributes.update(b.attributes)
    unset = frozenset() if a.replace else frozenset(a.unset).difference(b.attributes).union(b.unset)
    return Fold(
        epoch=a.epoch,
        rev=b.rev,
        base=a.base,
        seq=max(a.seq, b.seq),
        at=b.at,
        replace=a.replace,
        gap=a.gap or b.gap or gap_between,
        fields={**a.fields, **b.fields},
        attributes=attributes,
        unset=unset,
        refused_epoch=refused,
        tail=tail,
    )


def _closed(a: Fold, b: Fold, refused: int) -> Fold:
    """``b`` ends the session: what ``a`` said is of no use but for how far the session had come."""
    last = max(a, b, key=lambda each: (each.epoch, each.rev))
    return Fold(
        epoch=last.epoch,
        rev=last.rev,
        base=last.base,
        seq=max(each.seq for each in (a, b) if each.epoch == last.epoch),
        at=b.at,
        closed=b.closed,
        successor=b.successor,
        forget=b.forget,
        refused_epoch=refused,
    )


def _with(one: Fold, *, refused: int, forget: bool | None = None, seq: int | None = None) -> Fold:
    forget = one.forget if forget is None else forget
    seq = one.seq if seq is None else seq
    if (refused, forget, seq) == (one.refused_epoch, one.forget, one.seq):
        return one
    return msgspec.structs.replace(one, refused_epoch=refused, forget=forget, seq=seq)


def _fields_of(content: RecordPatch | DeviceRecord) -> dict[str, object]:
    return {name: value for name in RECORD_FIELDS if (value := getattr(content, name)) is not UNSET}
