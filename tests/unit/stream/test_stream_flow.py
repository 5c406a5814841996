"""Pausing and resuming by bytes."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.flow import FRAME_OVERHEAD_BYTES, Flow, Marks, marks_for

MARKS = Marks(high_bytes=600, low_bytes=300)


def test_it_pauses_at_the_high_mark_and_resumes_at_the_low_one():
    flow = Flow(MARKS)
    assert not flow.wants_pause(599)
    assert flow.wants_pause(600)
    flow.pause(0.0)
    assert not flow.wants_pause(600)
    assert not flow.wants_resume(301)
    assert flow.wants_resume(300)
    assert flow.resumed(1.0) is None
    assert not flow.paused


def test_what_does_not_fit_is_sought_again_from_the_first_dropped():
    flow = Flow(MARKS)
    assert flow.fits(500, 100)
    assert not flow.fits(500, 101)
    flow.refuse(70)
    flow.refuse(90)
    assert not flow.fits(0, 1), "nothing behind a dropped record may be placed before it"
    assert flow.wants_pause(0)
    flow.pause(0.0)
    assert flow.resumed(1.0) == 70
    assert flow.fits(0, 1)
    assert flow.resumed(1.0) is None


def test_a_pause_for_want_of_the_workers_speed_ends_when_there_is_room_by_that():
    flow = Flow(MARKS)
    flow.pause(0.0)
    assert not flow.wants_resume(600)
    flow.marks = Marks(high_bytes=2000, low_bytes=100)
    assert flow.wants_resume(1000)
    assert not flow.wants_resume(1001)
    flow.resumed(1.0)
    flow.pause(2.0)
    assert not flow.wants_resume(101), "that was the only one"
    assert flow.wants_resume(100)


def test_a_slow_worker_gets_no_more_at_once_than_its_speed_allows():
    """So that the largest record, which the first marks have room for, fits behind the resume."""
    flow = Flow(MARKS)
    flow.pause(0.0)
    flow.marks = Marks(high_bytes=700, low_bytes=50)
    assert flow.wants_resume(100)
    assert not flow.wants_resume(101)


def test_pauses_add_up():
    flow = Flow(MARKS)
    assert flow.paused_s(5.0) == 0
    flow.pause(10.0)
    assert flow.paused_s(12.5) == 2.5
    flow.resumed(13.0)
    flow.pause(20.0)
    assert flow.paused_s(21.0) == 4.0


RATES = st.none() | st.floats(0, 1e9)


@given(st.integers(1024, 1 << 22), st.integers(4, 64), RATES, st.floats(0.1, 3600))
def test_a_resumed_partition_takes_the_largest_record(max_record_bytes, times, rate, drain_timeout_s):
    """Or it would be paused and fetched again for ever."""
    marks = marks_for(
        ring_bytes=times * max_record_bytes,
        max_record_bytes=max_record_bytes,
        rate_bytes_per_s=rate,
        drain_timeout_s=drain_timeout_s,
    )
    assert 0 <= marks.low_bytes < marks.high_bytes <= times * max_record_bytes
    assert Flow(marks).fits(marks.low_bytes, max_record_bytes + FRAME_OVERHEAD_BYTES)


HIGH = (7 << 20) - FRAME_OVERHEAD_BYTES


def marks_at(rate, **more):
    return marks_for(ring_bytes=8 << 20, max_record_bytes=1 << 20, rate_bytes_per_s=rate, drain_timeout_s=30.0, **more)


@given(st.floats(0, 1e9))
def test_what_lies_below_the_mark_drains_in_half_the_deadline(rate):
    largest = (1 << 20) + FRAME_OVERHEAD_BYTES
    assert marks_at(rate).high_bytes <= max(largest, rate * 15)
    assert marks_at(rate).high_bytes >= min(HIGH, int(rate * 15))


@given(st.floats(0, 1e9))
def test_of_a_worker_that_is_at_least_so_fast_the_whole_deadline_is_filled(rate):
    largest = (1 << 20) + FRAME_OVERHEAD_BYTES
    assert marks_at(rate, is_floor=True).high_bytes == max(largest, min(HIGH, int(rate * 30)))
    assert marks_at(rate, is_floor=True).low_bytes >= marks_at(rate).low_bytes


def test_a_worker_that_is_fast_enough_gets_the_whole_mark_and_an_unknown_one_the_least():
    assert marks_at(1e9) == Marks(HIGH, HIGH // 2)
    assert marks_at(None).high_bytes == marks_at(0.0).high_bytes == (1 << 20) + FRAME_OVERHEAD_BYTES


def test_a_slow_worker_is_resumed_later_because_each_pause_costs_a_fetch():
    marks = marks_at(300_000.0)
    assert (marks.high_bytes, marks.low_bytes) == (4_500_000, 300_000)
