"""The time by which grants end: the database's, whatever the machine's clock does."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from dmpd.access.clock import ROUND_TRIP_MAX_S, GrantClock
from tests.support.grants import T0

seconds = st.floats(0, 1e6)


@given(st.floats(-1e6, 1e6), seconds, st.floats(0, ROUND_TRIP_MAX_S), seconds)
def test_after_the_first_answer_the_machines_clock_counts_for_nothing(wrong_by, asked, trip, later):
    clock = GrantClock(T0 + timedelta(seconds=wrong_by), 0.0)
    clock.sync(T0, asked_s=asked, answered_s=asked + trip)
    error = clock.now(asked + trip + later) - (T0 + timedelta(seconds=trip + later))
    assert abs(error) <= timedelta(seconds=trip / 2 + 0.001)


@given(st.floats(-1e6, 1e6), seconds)
def test_a_step_of_the_databases_clock_is_followed(step, later):
    clock = GrantClock(T0, 0.0)
    clock.sync(T0, asked_s=1, answered_s=1)
    clock.sync(T0 + timedelta(seconds=step), asked_s=2, answered_s=2)
    assert abs(clock.now(2 + later) - (T0 + timedelta(seconds=step + later))) < timedelta(milliseconds=1)


def test_a_slow_answer_is_believed_only_while_there_is_no_better_one():
    clock = GrantClock(T0, 0.0)
    clock.sync(T0 + timedelta(hours=1), asked_s=0, answered_s=10)
    assert clock.now(10) == T0 + timedelta(hours=1, seconds=5)
    clock.sync(T0 + timedelta(hours=2), asked_s=10, answered_s=20)
    assert clock.now(20) == T0 + timedelta(hours=1, seconds=15)


def test_without_a_database_it_is_the_machines_clock_carried_on():
    clock = GrantClock(T0, 5.0)
    assert clock.now(65.0) == T0 + timedelta(minutes=1)
    assert not clock.is_database_time
