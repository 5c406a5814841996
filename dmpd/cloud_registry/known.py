"""What a worker remembers of the rows it wrote or read, so that most batches need no read. Pure.

It may be wrong: another writer (a zombie, a restored database) may have been there. Whoever writes on the strength of
it has the database compare the position first.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from dmpd.cloud_registry.same_json import same_json
from dmpd.model.record import DeviceRecord, DeviceState
from dmpd.model.topics import info_topic

_encode: Final = msgspec.json.encode
_decode: Final = msgspec.json.decode
_record_decoder: Final = msgspec.json.Decoder(DeviceRecord)


class Content(Struct, frozen=True, gc=False):
    """A record in three parts: what changes often is at hand, the rest is packed."""

    state: DeviceState
    attributes: Mapping[str, Any]
    """Text, integers, booleans and null as they are; every other value as its JSON text (``Raw``)."""
    rest: bytes
    """The record without state and attributes, as JSON."""


def content_of(record: DeviceRecord) -> Content:
    """``record`` in parts."""
    attributes = {name: plain_value(value) for name, value in record.attributes.items()}
    return Content(record.state, attributes, rest_of(record))


def rest_of(record: DeviceRecord) -> bytes:
    """See ``Content.rest``."""
    return _encode(msgspec.structs.replace(record, state="unknown", attributes={}))


def same_rest(content: Content, record: DeviceRecord) -> bool:
    """Whether ``record`` is ``content`` but for state and attributes."""
    rest = rest_of(record)
    return content.rest == rest or _record_decoder.decode(content.rest) == _record_decoder.decode(rest)


def plain_value(value: Raw) -> Any:
    """The value that a message would have brought it as; see ``Content.attributes``."""
    found = _decode(value)
    return found if found is None or isinstance(found, str | int) else Raw(bytes(value))


def different(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``new`` is not in ``old``, or not the same there; values as in ``Content.attributes``."""
    absent = _ABSENT
    found = {
        name: value
        for name, value in new.items()
        if (was := old.get(name, absent)) is not value and (type(was) is not type(value) or was != value)
    }
    for name in [name for name, value in found.items() if type(value) is Raw and name in old]:
        if same_json(Raw(_encode(old[name])), found[name]):
            del found[name]
    return found


_ABSENT: Final = object()


class Known(Struct, frozen=True, gc=False):
    """An open row that is neither stale nor absent. ``offset`` is that of the record that changed it last."""

    epoch: int
    rev: int
    seq: int
    partition: int
    offset: int
    content: Content | None = None
    """``None``: not read yet."""


_OVERHEAD_BYTES: Final = 600
"""Of an entry, beside its content: key, structs, dictionaries and their slots."""
_ATTRIBUTE_BYTES: Final = 90
"""With a name and a value that are short."""
_SHORT_BYTES: Final = 64
"""Of a value; names that are short take no more."""


class KnownRows:
    """Bounded by bytes (an estimate); the row that was put first leaves first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._rows: dict[bytes, tuple[Known, int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def get(self, key: bytes) -> Known | None:
        found = self._rows.get(key)
        return None if found is None else found[0]

    def put(self, key: bytes, known: Known) -> None:
        self.forget(key)
        own = _size_bytes(known)
        self._rows[key] = known, own
        self._bytes += own
        while self._bytes > self._bytes_max:
            self.forget(next(iter(self._rows)))

    def forget(self, key: bytes | None) -> None:
        gone = self._rows.pop(key, None)  # type: ignore[arg-type] # no row has the key None
        if gone is not None:
            self._bytes -= gone[1]

    def forget_rae(self, rae: str) -> None:
        """A roster may have been to any of its sessions."""
        prefix = info_topic(rae, "").removesuffix("/info").encode()
        for key in [key for key in self._rows if key.startswith(prefix)]:
            self.forget(key)

    def clear(self) -> None:
        self._rows.clear()
        self._bytes = 0


def _value_bytes(value: Any) -> int:
    """About what a value of ``Content.attributes`` takes beyond a place for it: of a number nothing."""
    if type(value) is str:
        return len(value) if value.isascii() else 4 * len(value)
    return len(value) if type(value) is Raw else 0


def _size_bytes(known: Known) -> int:
    content = known.content
    if content is None:
        return _OVERHEAD_BYTES
    attributes = content.attributes
    count = len(attributes)
    long = 0
    if len(_encode(attributes)) > 2 * _SHORT_BYTES * count:  # else all together are no more than as many short ones
        long = sum(own for value in attributes.values() if (own := _value_bytes(value)) > _SHORT_BYTES)
    return _OVERHEAD_BYTES + len(content.rest) + _ATTRIBUTE_BYTES * count + long
