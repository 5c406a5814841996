"""Frames: the records of one partition and one turn of the loop as columns, in msgpack.

Columns in one frame are five to thirty times cheaper than a message per record. Used by parent and worker; knows
neither Kafka's client nor the ring.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from typing import Final, NamedTuple

import msgspec

from dmpd.stream.handler import Record

Headers = Sequence[tuple[str, bytes | None]]


class Position(NamedTuple):
    """Where a record lies in a ring: its frame's position, and which record of the frame it is. Ordered as they are."""

    frame: int
    nth: int


Offsets = range | list[int]
"""A range if they follow one another without a gap, as they do unless the topic is compacted or transactional."""


class Frame(msgspec.Struct, gc=False):
    """Equal-length columns, oldest record first. ``headers`` is None if no record has any.

    ``skipped``: nothing here is for the handler (the parent deals with it); the frame keeps its place in the order.
    """

    offsets: Offsets
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[list[tuple[str, bytes | None]] | None] | None
    skipped: bool = False


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """A frame as it lies in the ring; of offsets without a gap only the first."""

    offsets: int | list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[list[tuple[str, bytes | None]] | None] | None
    skipped: bool


_RECORD_OVERHEAD_BYTES: Final = 48
_HEADER_OVERHEAD_BYTES: Final = 11
"""Most that packing adds to a header; without it a record of many headers fits no empty ring."""
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Packed)
_BUFFER: Final = bytearray()


def encode(frame: Frame) -> bytearray:
    """Pack ``frame``. The result is overwritten by the next call: one thread only, and copy what is to stay.

    One buffer for all, because a fresh one of hundreds of kilobytes per call costs four times the packing itself.
    """
    offsets = frame.offsets
    first = offsets.start if isinstance(offsets, range) else offsets
    packed = _Packed(first, frame.timestamps_ms, frame.keys, frame.values, frame.headers, frame.skipped)
    _ENCODER.encode_into(packed, _BUFFER)
    return _BUFFER


def decode(payload: bytes | bytearray | memoryview) -> Frame:
    """Raises ``msgspec.DecodeError`` if ``payload`` is no frame."""
    packed = _DECODER.decode(payload)
    first = packed.offsets
    offsets = range(first, first + len(packed.keys)) if isinstance(first, int) else first
    return Frame(offsets, packed.timestamps_ms, packed.keys, packed.values, packed.headers, packed.skipped)


def record_at(frame: Frame, index: int) -> Record:
    headers = frame.headers[index] if frame.headers is not None else None
    return Record(
        frame.offsets[index], frame.timestamps_ms[index], frame.keys[index], frame.values[index], headers or ()
    )


def records(payload: bytes | bytearray | memoryview) -> list[Record]:
    """All records of a packed frame, none if it is skipped. Raises ``msgspec.DecodeError`` if it is no frame."""
    packed = _DECODER.decode(payload)
    if packed.skipped:
        return []
    first = packed.offsets
    if packed.headers is None and len(packed.keys) == 1 and isinstance(first, int):
        return [Record(first, packed.timestamps_ms[0], packed.keys[0], packed.values[0], ())]
    offsets = count(first) if isinstance(first, int) else first
    headers = repeat(()) if packed.headers is None else [own or () for own in packed.headers]
    return list(map(Record, offsets, packed.timestamps_ms, packed.keys, packed.values, headers))


def split(frame: Frame, *, piece_bytes_max: int, record_bytes_max: int) -> Iterator[Frame]:
    """Cut ``frame`` into pieces of about ``piece_bytes_max``, in order; one over ``record_bytes_max`` stands alone.

    Whoever needs to know which those are asks ``is_oversized``.
    """
    start = size = 0
    for index in range(len(frame.offsets)):
        own = _content_bytes_at(frame, index)
        if index > start and (size + own > piece_bytes_max or own > record_bytes_max):
            yield _cut(frame, start, index)
            start, size = index, 0
        size += own + _RECORD_OVERHEAD_BYTES
        if own > record_bytes_max:
            yield _cut(frame, index, index + 1)
            start, size = index + 1, 0
    if start < len(frame.offsets):
        yield _cut(frame, start, len(frame.offsets))


def from_offset(frame: Frame, offset: int) -> Frame:
    """The records of ``offset`` and above; maybe none."""
    return _cut(frame, bisect_left(frame.offsets, offset), len(frame.offsets))


def is_oversized(frame: Frame, record_bytes_max: int) -> bool:
    """Whether this piece of ``split`` is a record that is too large for the handler."""
    return len(frame.offsets) == 1 and _content_bytes_at(frame, 0) > record_bytes_max


def without_content(frame: Frame) -> Frame:
    """A skipped frame that keeps the place of ``frame`` in the order."""
    count = len(frame.offsets)
    return Frame(frame.offsets, frame.timestamps_ms, [None] * count, [None] * count, None, skipped=True)


def _cut(frame: Frame, start: int, stop: int) -> Frame:
    part = slice(start, stop)
    headers = None if frame.headers is None else frame.headers[part]
    return Frame(frame.offsets[part], frame.timestamps_ms[part], frame.keys[part], frame.values[part], headers)


def _content_bytes_at(frame: Frame, index: int) -> int:
    return content_bytes(frame.keys[index], frame.values[index], frame.headers[index] if frame.headers else None)


def content_bytes(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Size of a record as ``max_record_bytes`` means it: key, value, and each header with what packing adds to it."""
    size = len(key or b"") + len(value or b"")
    for name, content in headers or ():
        size += _HEADER_OVERHEAD_BYTES + len(name.encode()) + len(content or b"")
    return size
