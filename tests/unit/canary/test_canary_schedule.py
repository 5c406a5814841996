from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.canary.schedule import alarm, due_s

shares = st.floats(0, 1)


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(60, 1e5), st.floats(0, 0.5), shares)
def test_the_next_run_is_an_interval_away_give_or_take_the_jitter(last_s, interval_s, jitter, draw):
    at_s = due_s(last_s, last_s, interval_s=interval_s, jitter=jitter, draw=draw)
    assert interval_s * (1 - jitter) - 1e-6 <= at_s - last_s <= interval_s * (1 + jitter) + 1e-3


@settings(deadline=None)
@given(st.one_of(st.none(), st.floats(-1e6, -2e5)), st.floats(60, 1e5), st.floats(0, 0.5), shares)
def test_what_is_overdue_is_due_soon(last_s, interval_s, jitter, draw):
    at_s = due_s(last_s, 100.0, interval_s=interval_s, jitter=jitter, draw=draw)
    assert 100.0 <= at_s <= 100.0 + interval_s * jitter / 10 + 1e-6


def test_no_end_for_too_long_is_an_alarm():
    assert alarm(ended_age_s=12_601, watched_s=5, alarm_s=12_600) is not None
    assert "in 3.5 h" in str(alarm(ended_age_s=20_000, watched_s=5, alarm_s=12_600))
    assert alarm(ended_age_s=12_600, watched_s=1e9, alarm_s=12_600) is None


def test_who_has_just_begun_to_watch_waits_for_a_first_run():
    assert alarm(ended_age_s=None, watched_s=12_600, alarm_s=12_600) is None
    assert alarm(ended_age_s=None, watched_s=12_601, alarm_s=12_600) is not None
