"""How much the attributes of a row may be in all: what a thousand valid changes of one device session could sum up to.

One message is bounded (``limits``), and with it every record that a RAE holds and every checkpoint; a row that missed
the end of attributes, or a RAE that is not honest, is not. Sizes do not depend on how JSON is spelled, because the
database spells it anew: it writes numbers out (``1e308`` takes 309 bytes). They are never above the length of the text
that came, written out likewise. Pure.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw

from dmpd.model import limits

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode

FEW: Final = limits.ROW_ATTRIBUTES_BYTES_MAX // (limits.ATTRIBUTE_VALUE_BYTES_MAX + limits.ATTRIBUTE_KEY_BYTES_MAX)
"""So many attributes are within the bounds whatever they are."""


_measured: tuple[Mapping[str, Any], int] = ({}, 0)
"""The attributes measured last: messages that are refused one after the other meet the same ones."""


def growth_refused(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why a row with the attributes ``before`` must not get ``after``; ``None`` if it may.

    Values are JSON text (``Raw``) or what it says; those that ``after`` has from ``before`` are the same objects, or it
    takes longer. A row over a bound may always shrink. Neither mapping is to be changed afterwards.
    """
    global _measured  # noqa: PLW0603 - a memory, not a state: what it holds never changes
    if len(after) <= FEW:
        return None
    if len(after) > limits.ROW_ATTRIBUTES_MAX and len(after) > len(before):
        return f"the row would have {len(after)} attributes, at most {limits.ROW_ATTRIBUTES_MAX}"
    size_before = _measured[1] if _measured[0] is before else attributes_size(before)
    size = size_before + _difference(before, after)
    if size > limits.ROW_ATTRIBUTES_BYTES_MAX and size > size_before:
        _measured = before, size_before
        return f"the row's attributes would take {size} bytes, at most {limits.ROW_ATTRIBUTES_BYTES_MAX}"
    _measured = after, size
    return None


def attributes_size(attributes: Mapping[str, Any]) -> int:
    """Bytes of names and values."""
    return sum(_text_size(name) + value_size(value) for name, value in attributes.items())


def value_size(value: Any) -> int:
    """Text by its UTF-8 and two quotes, numbers written out; each list, object, item, member, colon and word as one."""
    if isinstance(value, str):
        return _text_size(value)
    if isinstance(value, Raw):
        return value_size(_decode(value))
    if isinstance(value, list):
        return 1 + sum(1 + value_size(item) for item in value)
    if isinstance(value, dict):
        return 1 + sum(2 + _text_size(name) + value_size(item) for name, item in value.items())
    return 1 if value is None or isinstance(value, bool) else number_size(value)


def number_size(number: int | Decimal) -> int:
    """Characters of ``number`` without an exponent, as PostgreSQL's jsonb writes it: places are kept, zeros too."""
    if isinstance(number, int):
        return len(str(number))
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "JSON has no infinity"
    if not number:
        return 1 if exponent >= 0 else 2 - exponent
    whole = max(1, number.adjusted() + 1)
    return (number < 0) + whole + (1 - exponent if exponent < 0 else 0)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    changed = {name: value for name, value in after.items() if before.get(name, _ABSENT) is not value}
    gone = {name: value for name, value in before.items() if name not in after or name in changed}
    return attributes_size(changed) - attributes_size(gone)


def _text_size(text: str) -> int:
    return 2 + (len(text) if text.isascii() else len(text.encode()))


_ABSENT: Final = object()
