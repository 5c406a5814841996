"""The quick way in for what nearly every message is: a change or checkpoint of plain values.

Derived from the messages' own definitions. Takes a part of what ``codec`` takes, never more, and what it takes means
the same: everything in such a payload is text, an integer in range, true, false or null, and of a known name, so that
nothing is left that a strict scan could find. What is refused here is for ``codec.decode_record`` to judge.
"""

from datetime import UTC
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from dmpd.model import limits
from dmpd.model.bounds import check_esn, check_instant, check_interfaces
from dmpd.model.fold import RECORD_FIELDS
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Change, Checkpoint, Epoch, Positive64
from dmpd.model.record import Code, DeviceRecord, DeviceState, Instant, Interface

PLAIN_BYTES_MAX: Final = limits.ATTRIBUTE_VALUE_BYTES_MAX
"""Of a payload: no value in it can be over its own bound."""

_Integer = Annotated[int, Meta(ge=-limits.INT64_MAX - 1, le=limits.INT64_MAX)]
_Name = Annotated[str, Meta(min_length=1, max_length=limits.ATTRIBUTE_KEY_BYTES_MAX // 4)]
_Attributes = Annotated[dict[_Name, str | _Integer | bool | None], Meta(max_length=limits.ATTRIBUTES_MAX)]


class _Interface(Interface, frozen=True, forbid_unknown_fields=True):
    pass


class PlainSet(Struct, forbid_unknown_fields=True, gc=False):
    """What changes say all the time. Whatever else a change may set is for ``codec``."""

    state: DeviceState | UnsetType = UNSET
    attributes: _Attributes | UnsetType = UNSET


class PlainRecord(DeviceRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``DeviceRecord`` of plain values."""

    interfaces: Annotated[tuple[_Interface, ...], Meta(max_length=limits.INTERFACES_MAX)] = ()
    attributes: _Attributes = field(default_factory=dict)  # type: ignore[assignment] # values, not their JSON


class PlainChange(Struct, tag_field="kind", tag="change", forbid_unknown_fields=True, gc=False):
    """A ``Change`` of state and attributes, without ``unset``."""

    v: Literal[1]
    rae: str
    session: str
    at: Instant
    epoch: Epoch
    rev: Positive64
    seq: Positive64 | None = None
    patch: PlainSet = field(name="set", default_factory=PlainSet)
    cause: Code | None = None


class PlainCheckpoint(Struct, tag_field="kind", tag="checkpoint", forbid_unknown_fields=True, gc=False):
    """A ``Checkpoint`` of plain values."""

    v: Literal[1]
    rae: str
    session: str
    at: Instant
    epoch: Epoch
    rev: Positive64
    record: PlainRecord
    seq: Positive64 | None = None
    cause: Code | None = None


BACKSLASH: Final = ord("\\")
UNDECODABLE: Final = (msgspec.MsgspecError, RecursionError, ValueError, TypeError)
"""What ``decode_unchecked`` raises, of no payload (``None``) too."""
decode_unchecked: Final = msgspec.json.Decoder(PlainChange | PlainCheckpoint).decode


def decode_plain(payload: bytes | None) -> PlainChange | PlainCheckpoint | None:
    """``None`` if ``payload`` is for ``codec`` to judge.

    The caller compares ``rae`` and ``session`` with the topic's, and refuses the RAE's own topic.
    """
    if not payload or len(payload) > PLAIN_BYTES_MAX or BACKSLASH in payload:
        return None  # an escape may be a NUL
    try:
        message = decode_unchecked(payload)
    except UNDECODABLE:
        return None
    if message.at.tzinfo is not UTC or not limits.YEAR_MIN <= message.at.year <= limits.YEAR_MAX:
        return None
    return message if isinstance(message, PlainChange) or is_in_bounds(message.record) else None


def is_in_bounds(record: PlainRecord) -> bool:
    """Whether ``record`` is within the bounds that types cannot say."""
    try:
        for instant in (record.first_seen, record.onboarded_at):
            if instant is not None:
                check_instant(instant)
        check_interfaces(record.interfaces)
        check_esn(record.esn)
    except InvalidMessageError:
        return False
    return True


def fields_of(record: DeviceRecord) -> dict[str, Any]:
    """All fields but ``attributes``, as ``fold`` has them."""
    fields = {name: getattr(record, name) for name in RECORD_FIELDS}
    if isinstance(record, PlainRecord):
        plain = record.interfaces
        fields["interfaces"] = tuple(msgspec.convert(each, Interface, from_attributes=True) for each in plain)
    return fields


assert {name for name in get_type_hints(Change) if name != "unset"} - {"kind"} == set(get_type_hints(PlainChange))
assert set(get_type_hints(Checkpoint)) == set(get_type_hints(PlainCheckpoint))
