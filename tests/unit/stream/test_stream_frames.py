"""Frames: columns, cutting, and what a record weighs."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream import frames, ring
from dmpd.stream.flow import FRAME_OVERHEAD_BYTES
from dmpd.stream.frames import Frame
from dmpd.stream.handler import Record

RECORDS = st.lists(
    st.builds(
        Record,
        offset=st.just(0),
        timestamp_ms=st.integers(0, 1 << 42),
        key=st.none() | st.binary(max_size=20),
        value=st.none() | st.binary(max_size=400),
        headers=st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=20)), max_size=2),
    ),
    min_size=1,
    max_size=20,
)


def frame_from(records, *, first=100):
    numbered = [msgspec.structs.replace(record, offset=first + 2 * n) for n, record in enumerate(records)]
    frame = Frame(
        [r.offset for r in numbered],
        [r.timestamp_ms for r in numbered],
        [r.key for r in numbered],
        [r.value for r in numbered],
        [list(r.headers) or None for r in numbered] if any(r.headers for r in numbered) else None,
    )
    return frame, numbered


def comparable(records):
    return [msgspec.structs.replace(record, headers=[tuple(h) for h in record.headers]) for record in records]


@given(RECORDS)
def test_records_come_back_as_they_were(records):
    frame, expected = frame_from(records)
    packed = bytes(frames.encode(frame))
    assert comparable(frames.records(packed)) == comparable(expected)
    decoded = frames.decode(packed)
    assert comparable([frames.record_at(decoded, n) for n in range(len(expected))]) == comparable(expected)


@given(RECORDS, st.integers(50, 500), st.integers(50, 500))
def test_pieces_are_the_frame_and_only_oversized_ones_stand_alone_beyond_the_limit(records, piece, limit):
    frame, expected = frame_from(records)
    pieces = list(frames.split(frame, piece_bytes_max=piece, record_bytes_max=limit))
    assert comparable([r for one in pieces for r in frames.records(frames.encode(one))]) == comparable(expected)
    for one in pieces:
        sizes = [frames.content_bytes(r.key, r.value, r.headers) for r in frames.records(frames.encode(one))]
        assert frames.is_oversized(one, limit) == (max(sizes) > limit)
        assert len(sizes) == 1 or sum(sizes) <= max(piece, limit)


@given(st.integers(0, 3000), st.integers(0, 40), st.sampled_from([None, b"", b"v" * 300]))
def test_a_record_that_is_not_oversized_fits_an_empty_ring(count, name_bytes, content):
    """Whatever its headers: else it would be dropped, sought, and dropped again for ever."""
    frame, _ = frame_from([Record(0, 1, b"k", b"v", [("n" * name_bytes, content)] * count)])
    limit = frames.content_bytes(frame.keys[0], frame.values[0], frame.headers and frame.headers[0])
    assert not frames.is_oversized(frame, limit)
    assert ring.frame_bytes(len(frames.encode(frame))) <= limit + FRAME_OVERHEAD_BYTES


def test_a_skipped_frame_offers_nothing_but_keeps_its_offsets():
    frame, _ = frame_from([Record(0, 1, b"k", b"v" * 1000, [("h", b"x")])] * 3)
    packed = bytes(frames.encode(frames.without_content(frame)))
    assert frames.records(packed) == []
    assert frames.decode(packed).offsets == frame.offsets
    assert len(packed) < 60


@pytest.mark.parametrize(("offset", "left"), [(99, [100, 102, 104]), (101, [102, 104]), (102, [102, 104]), (105, [])])
def test_what_was_placed_before_is_cut_off(offset, left):
    frame, _ = frame_from([Record(0, 1, b"k", b"v", ())] * 3)
    assert frames.from_offset(frame, offset).offsets == left
