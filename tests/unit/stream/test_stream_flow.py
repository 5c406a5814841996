"""Pausing and resuming by bytes."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.flow import FRAME_OVERHEAD_BYTES, Flow, Marks, marks_for

MARKS = Marks(high_bytes=600, low_bytes=300)


def test_it_pauses_at_the_high_mark_and_resumes_at_the_low_one():
    flow = Flow(MARKS)
    assert not flow.wants_pause(599)
    assert flow.wants_pause(600)
    flow.paused = True
    assert not flow.wants_pause(600)
    assert not flow.wants_resume(301)
    assert flow.wants_resume(300)
    assert flow.resumed() is None
    assert not flow.paused


def test_what_does_not_fit_is_sought_again_from_the_first_dropped():
    flow = Flow(MARKS)
    assert flow.fits(500, 100)
    assert not flow.fits(500, 101)
    flow.refuse(70)
    flow.refuse(90)
    assert not flow.fits(0, 1), "nothing behind a dropped record may be placed before it"
    assert flow.wants_pause(0)
    flow.paused = True
    assert flow.resumed() == 70
    assert flow.fits(0, 1)
    assert flow.resumed() is None


@given(st.integers(1024, 1 << 22), st.integers(4, 64))
def test_a_resumed_partition_takes_the_largest_record(max_record_bytes, times):
    """Or it would be paused and fetched again for ever."""
    marks = marks_for(ring_bytes=times * max_record_bytes, max_record_bytes=max_record_bytes)
    assert 0 <= marks.low_bytes < marks.high_bytes <= times * max_record_bytes
    assert Flow(marks).fits(marks.low_bytes, max_record_bytes + FRAME_OVERHEAD_BYTES)
