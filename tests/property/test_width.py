"""The width of writes stays within its bounds, gives way at once and comes back slowly."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.cloud_registry.width import Width


@given(sessions_max=st.integers(1, 10_000), steps=st.lists(st.tuples(st.booleans(), st.integers(1, 10_000))))
def test_it_stays_within_its_bounds_and_moves_the_right_way(sessions_max, steps):
    width = Width(sessions_max)
    for was_refused, sessions in steps:
        before = width.sessions
        if was_refused:
            width.refused(sessions)
            assert width.sessions <= before
        else:
            width.written(sessions)
            assert width.sessions >= before
        assert min(64, sessions_max) <= width.sessions <= sessions_max


def test_it_gives_way_at_once_and_comes_back_slowly():
    width = Width(1000)
    width.refused(1000)
    assert width.sessions == 250
    for _ in range(5):
        width.written(width.sessions)
    assert 250 < width.sessions < 1000
    for _ in range(10):
        width.written(width.sessions)
    assert width.sessions == 1000
    width.refused(999)
    assert width.sessions == 1000, "a part of what was refused before"
