"""Folding while reading: many plain messages of one device session become one ``Fold``, without one of each.

The same rules as ``fold``, for the way that nearly every session goes: one epoch, and each revision continues the last
or was there before. Whatever else comes makes the run ``irregular``, and its records are for ``fold`` to fold.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from dmpd.model.fold import Fold
from dmpd.model.limits import YEAR_MAX, YEAR_MIN
from dmpd.model.plain import (
    BACKSLASH,
    PLAIN_BYTES_MAX,
    UNDECODABLE,
    PlainChange,
    PlainCheckpoint,
    PlainRecord,
    decode_unchecked,
    fields_of,
    is_in_bounds,
)
from dmpd.model.record import DeviceState

_encode: Final = msgspec.json.encode


Said = tuple[datetime, int, int, DeviceState, str | None]
"""A state that a message said: ``at``, ``seq``, ``rev``, the state, ``cause``; as JSON an array in this order."""


SAID_MAX: Final = 32
"""Most states that are kept, the last ones (up to twice as many meanwhile)."""
_SAID_MEANWHILE_MAX: Final = 2 * SAID_MAX

Judge = Callable[[int], PlainChange | PlainCheckpoint | None]
"""Called with the place of a payload that is not plain, or not of this session, for all rules to judge it. Returns what
it is after all, or ``None``: it is refused, or it is something else and the run was made irregular."""


class Running:
    """The plain messages of one device session so far, oldest first. Not for the RAE's own topic.

    Args:
        rae: Of the topic, like ``session``: the caller compares the messages'.
        epoch: With ``rev`` the row's position, if a row is known that is exactly that: what it has already is passed
            over. 0 if none is known.
    """

    __slots__ = (
        "at",
        "attributes",
        "base",
        "epoch",
        "irregular",
        "last_offset",
        "rae",
        "record",
        "rev",
        "said",
        "seq",
        "session",
        "state",
        "unsaid",
    )

    def __init__(self, rae: str, session: str, epoch: int = 0, rev: int = 0) -> None:
        self.rae: Final = rae
        self.session: Final = session
        self.epoch = epoch
        self.rev = rev
        self.base = rev
        self.seq = 0
        self.at: datetime | None = None
        self.record: PlainRecord | None = None
        """Of the last checkpoint: all of it holds but ``state`` and ``attributes``."""
        self.attributes: dict[str, Any] = {}
        self.state: DeviceState | None = None
        """Said last."""
        self.said: list[Said] = []
        """No two equal ones in a row."""
        self.unsaid = 0
        """How many more there were before them."""
        self.irregular = False
        """Not to be folded here; nothing but ``rae`` and ``session`` holds any longer."""
        self.last_offset = -1
        """The caller's: of the last record that was taken."""

    @property
    def replace(self) -> bool:
        """Whether a checkpoint is in it."""
        return self.record is not None

    @property
    def has_news(self) -> bool:
        """Whether there is anything that the known row does not have."""
        return self.at is not None

    def take(self, payloads: Sequence[Any], judge: Judge) -> None:
        """Decode and fold ``payloads`` (bytes, or ``None`` where there is none), oldest first, until irregular.

        One loop over one session, with everything at hand in local variables: this is where a worker that catches up
        spends its time.
        """
        rae, session, epoch, rev, seq, at, state = (
            self.rae, self.session, self.epoch, self.rev, self.seq, self.at, self.state,
        )  # fmt: skip
        merge, said = self.attributes.update, self.said
        decode = decode_unchecked
        for number, payload in enumerate(payloads):
            try:
                # As decode_plain, whose call would be a tenth of all this.
                message = None if BACKSLASH in payload or len(payload) > PLAIN_BYTES_MAX else decode(payload)
            except UNDECODABLE:
                message = None
            if (
                message is None
                or message.session != session
                or message.rae != rae
                or not YEAR_MIN <= (at_now := message.at).year <= YEAR_MAX
                or at_now.tzinfo is not UTC
                or (type(message) is PlainCheckpoint and not is_in_bounds(message.record))
            ):
                message = judge(number)
                if message is None:
                    if self.irregular:
                        return
                    continue
                at_now = message.at
            now = message.rev
            if type(message) is PlainChange:
                if now == rev + 1 and message.epoch == epoch:
                    pass
                elif epoch == 0:
                    epoch, self.base = message.epoch, now - 1
                elif message.epoch == epoch and now <= rev:
                    continue
                else:
                    self.irregular = True
                    return
                patch = message.patch
                if (attributes := patch.attributes) is not UNSET:
                    merge(attributes)
                now_state = patch.state
            else:
                if epoch == 0:
                    epoch = message.epoch
                elif message.epoch != epoch:
                    self.irregular = True
                    return
                elif now < rev:
                    continue
                record = message.record  # type: ignore[union-attr] # the other of two kinds
                self.base, self.record = now - 1, record
                self.attributes.clear()
                merge(record.attributes)
                now_state = record.state
            rev, at = now, at_now
            now_seq = message.seq
            if now_seq is not None and now_seq > seq:
                seq = now_seq
            if now_state is not UNSET and now_state != state:
                state = now_state
                said.append((at, now_seq or 0, now, state, message.cause))
                if len(said) > _SAID_MEANWHILE_MAX:
                    self.unsaid += SAID_MAX
                    del said[:SAID_MAX]
        self.epoch, self.rev, self.seq, self.at, self.state = epoch, rev, seq, at, state

    def fold(self) -> Fold:
        """What was taken, as one. Only if it has news and is not irregular."""
        assert self.at is not None
        assert not self.irregular
        fields = {} if self.record is None else fields_of(self.record)
        if self.state is not None:
            fields["state"] = self.state
        return Fold(
            epoch=self.epoch,
            rev=self.rev,
            base=self.base,
            seq=self.seq,
            at=self.at,
            replace=self.replace,
            fields=fields,
            attributes={name: Raw(_encode(value)) for name, value in self.attributes.items()},
        )
