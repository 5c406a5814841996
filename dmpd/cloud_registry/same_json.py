"""Whether two JSON texts mean the same: a database gives a value back in another spelling than it got. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw

from dmpd.model.record import DeviceRecord

Attributes = Mapping[str, Raw]

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode
"""Numbers exactly, as a database keeps them: it gives ``1e23`` back as an integer, which is no double."""


def same_json(a: Raw, b: Raw) -> bool:
    """Equal as JSON: members in any order, numbers by value, ``true`` is not 1."""
    if bytes(a) == bytes(b):
        return True
    return _same(_decode(a), _decode(b))


def same_record(a: DeviceRecord, b: DeviceRecord) -> bool:
    """Equal in every field, attributes as JSON."""
    if a.attributes.keys() != b.attributes.keys():
        return False
    if not all(same_json(value, b.attributes[name]) for name, value in a.attributes.items()):
        return False
    return msgspec.structs.replace(a, attributes={}) == msgspec.structs.replace(b, attributes={})


def _same(a: object, b: object) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(value, b[name]) for name, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b
