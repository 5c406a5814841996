"""One partition's ring and what is placed into it."""

import tracemalloc

import pytest

from dmpd.stream.flow import marks_for
from dmpd.stream.frames import Frame, Position
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings

SETTINGS = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)


@pytest.fixture
def partition():
    partition = Partition(0, epoch=1, next_offset=0, settings=SETTINGS)
    yield partition
    partition.close()


def frame(first, count, *, size=100):
    return Frame(list(range(first, first + count)), [0] * count, [b"k"] * count, [bytes(size)] * count, None)


def fill(partition):
    """Place records until some are refused; returns the offset of the first that was."""
    offset = 0
    while partition.flow.seek_offset is None:
        partition.place(frame(offset, 10))
        offset += 10
    return partition.flow.seek_offset


def test_what_does_not_fit_is_dropped_and_nothing_behind_it_slips_in(partition):
    refused = fill(partition)
    assert partition.next_to_place == refused
    assert partition.used_bytes <= partition.flow.marks.high_bytes
    partition.ledger.release(Position(partition.ring.published, 0))
    partition.free()
    partition.place(frame(refused + 50, 10))
    assert partition.next_to_place == refused
    assert partition.flow.resumed(1.0) == refused
    partition.place(frame(refused, 10))
    assert partition.next_to_place == refused + 10


@pytest.mark.parametrize("size", [20, 300])
def test_records_that_trickle_in_cost_the_parent_no_more_than_2_mib_a_partition(size):
    partition = Partition(0, epoch=1, next_offset=0, settings=StreamSettings())
    partition.flow.marks = marks_for(
        ring_bytes=StreamSettings().ring_capacity_bytes,
        max_record_bytes=1 << 20,
        rate_bytes_per_s=1e9,
        drain_timeout_s=10,
    )
    tracemalloc.start()
    try:
        offset = 0
        while partition.flow.seek_offset is None:
            partition.place(frame(offset, 1, size=size))
            partition.note_progress(offset / 75)
            offset += 1
        books_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert offset > 3000
    assert books_bytes < 2 << 20
    assert partition.flow.wants_pause(partition.used_bytes)
    partition.ledger.release(Position(partition.ring.published, 0))
    partition.free()
    assert partition.used_bytes == 0
    partition.close()


def test_what_was_placed_before_is_not_placed_again(partition):
    partition.place(frame(0, 10))
    partition.place(frame(5, 10))
    partition.place(frame(3, 4))
    assert partition.ledger.placed_records == 15
    assert partition.next_to_place == 15


def test_a_frame_larger_than_a_piece_is_cut(partition):
    partition.place(frame(0, 300))
    assert 0 < partition.ledger.placed_records <= 300
    assert partition.record_at(Position(0, 0)).offset == 0
    assert partition.next_to_place == partition.ledger.placed_records


def test_lost_offsets_are_counted_once(partition):
    partition.place(frame(0, 10))
    partition.lost_from = partition.next_to_place
    assert partition.take_loss(25) == 15
    assert partition.take_loss(25) == 0
    partition.place(frame(25, 5))
    assert partition.next_to_place == 30


def test_a_topic_made_anew_begins_again(partition):
    partition.place(frame(0, 10))
    partition.lost_from = partition.next_to_place
    assert partition.take_loss(0) == 0
    partition.place(frame(0, 5))
    assert partition.ledger.placed_records == 15
    assert partition.next_to_place == 5


def test_a_ring_too_small_for_its_records_is_a_mistake_of_the_configuration():
    with pytest.raises(ValueError, match="at least 4 x max_record_bytes"):
        StreamSettings(ring_bytes=1 << 16, max_record_bytes=1 << 15)
