"""A step of a wall clock is noticed, and nothing else is taken for one, however slowly the clock is asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.canary.wall_clock import WallClock

WALL_S = 1_800_000_000.0
waits = st.lists(st.tuples(st.floats(0.01, 60), st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=30)
"""Of each look: seconds since the last, seconds that it took, and at which share of these the clock was read."""


def looks(clock, waits, *, ahead_s=WALL_S, at_s=1000.0, rate=0.0):
    """Ask a clock that gains ``rate`` seconds a second; returns when the last look ended."""
    for wait_s, took_s, share in waits:
        before_s = at_s + wait_s
        read_s, at_s = before_s + took_s * share, before_s + took_s
        clock.note(ahead_s + read_s + rate * (read_s - 1000.0), before_s, at_s)
    return at_s


@settings(deadline=None)
@given(waits, st.floats(-0.0005, 0.0005))
def test_slow_answers_and_a_slewed_clock_are_no_step(waits, rate):
    clock = WallClock()
    looks(clock, waits, rate=rate)
    assert clock.stepped_s is None


def test_a_clock_that_is_slewed_while_answers_are_slow_is_not_stepped():
    """What a quick answer told long ago holds no longer as well as it did."""
    clock = WallClock()
    looks(clock, [(1.0, 0.0, 0.0), *[(60.0, 5.0, 0.5)] * 28, (60.0, 0.0, 0.0)], rate=0.0005)
    assert clock.stepped_s is None


@settings(deadline=None)
@given(waits, st.floats(0, 100))
def test_an_instant_is_known_as_well_as_the_quickest_answer_was_quick(waits, ago_s):
    clock = WallClock()
    now_s = looks(clock, waits)
    slack_s = min(took_s for _, took_s, _ in waits) + sum(wait_s + took_s for wait_s, took_s, _ in waits) * 0.002
    assert clock.monotonic_s(WALL_S + now_s - ago_s) == pytest.approx(now_s - ago_s, abs=slack_s + 1e-3)


@settings(deadline=None)
@given(waits, waits, st.floats(16, 1e7), st.sampled_from([-1, 1]))
def test_a_step_is_noticed_once_and_times_behind_it_are_right_again(waits, later, step_s, sign):
    clock = WallClock()
    before_s = looks(clock, waits)
    ahead_s = WALL_S + sign * step_s
    behind_s = looks(clock, later[:1], ahead_s=ahead_s, at_s=before_s)
    assert clock.stepped_s == behind_s
    now_s = looks(clock, later, ahead_s=ahead_s, at_s=behind_s)
    assert clock.stepped_s == behind_s
    assert clock.monotonic_s(ahead_s + now_s) == pytest.approx(now_s, abs=6)
    assert clock.said_s <= ahead_s + now_s


def test_a_step_of_a_second_is_noticed_where_answers_are_quick():
    clock = WallClock()
    at_s = looks(clock, [(0.5, 0.01, 0.5)] * 20)
    looks(clock, [(0.5, 0.01, 0.5)], ahead_s=WALL_S + 1, at_s=at_s)
    assert clock.stepped_s == pytest.approx(at_s + 0.51)
