"""How far behind: records, seconds, seconds to go; and the age of what lies in a ring."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.ages import Ages
from dmpd.stream.fetch_positions import FetchPositions
from dmpd.stream.lag import LagMeter


def measured(meter=None, now_s=0.0, *, records=5, since_written_s=None, has_fetched_all=False):
    return (meter or LagMeter()).measure(
        now_s, records=records, since_written_s=since_written_s, has_fetched_all=has_fetched_all
    )


def test_what_is_in_the_ring_says_how_old_it_is():
    assert measured(records=5, since_written_s=3.5).seconds == 3.5
    assert measured(records=None, since_written_s=3.5) == (None, 3.5, None)


def test_what_is_not_fetched_is_at_least_as_old_as_its_lag_is_known():
    meter = LagMeter()
    assert measured(meter, 10.0).seconds == 0
    assert measured(meter, 14.0).seconds == 4
    assert measured(meter, 15.0, since_written_s=9.0).seconds == 9
    assert measured(meter, 16.0).seconds == 0, "another record now"


def test_caught_up_is_zero_and_unknown_is_nothing():
    assert measured(records=0) == (0, 0.0, 0.0)
    assert measured(records=None) == (None, None, None)


def test_markers_of_transactions_at_the_end_keep_the_records_and_not_the_seconds():
    meter = LagMeter()
    measured(meter, 0.0, records=1, has_fetched_all=True)
    assert measured(meter, 100.0, records=1, has_fetched_all=True) == (1, 0.0, None)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(10, 10**9))
def test_the_time_to_go_is_lag_over_what_it_shrinks_by(passes_per_s, arrives_per_s, records):
    meter = LagMeter()
    for second in range(0, 10, 2):
        meter.note(float(second), 10**10 - second * (passes_per_s - arrives_per_s))
    eta_s = measured(meter, records=records).eta_s
    if passes_per_s > arrives_per_s:
        assert abs(eta_s - records / (passes_per_s - arrives_per_s)) <= eta_s * 1e-6
    else:
        assert eta_s is None


def test_the_time_to_go_forgets_a_burst_after_a_few_answers():
    meter = LagMeter()
    for second, records in enumerate([0, 1000, 900, 800, 700]):
        meter.note(float(second), records)
    assert measured(meter, records=700).eta_s is None
    meter.note(5.0, 600)
    meter.note(6.0, 500)
    assert measured(meter, records=500).eta_s == 5


def test_ages_follow_the_frontier_and_the_worker():
    ages = Ages()
    assert ages.since_written_s(0.0, 1000.0) is None
    assert ages.since_placed_s(0.0, 0) is None
    ages.put(990_000)
    ages.put(995_000)
    ages.note(10.0, published=100, passed=0)
    ages.put(998_000)
    ages.note(12.0, published=200, passed=0)
    assert ages.since_written_s(13.0, 1000.0) == 10
    assert ages.since_placed_s(13.0, 0) == 3
    assert ages.since_placed_s(13.0, 100) == 1
    ages.note(13.0, published=200, passed=100)
    assert ages.since_written_s(13.0, 1000.0) == 2
    ages.note(14.0, published=200, passed=200)
    assert ages.since_written_s(14.0, 1001.0) is None
    assert ages.since_placed_s(14.0, 200) is None


@given(st.sampled_from([-1, 0, 2_000_000]))
def test_without_a_timestamp_or_with_one_of_tomorrow_the_ring_is_the_clock(written_ms):
    ages = Ages()
    ages.put(written_ms)
    ages.note(10.0, published=100, passed=0)
    assert ages.since_written_s(17.0, 1000.0) == 7


def test_fetch_positions_are_those_of_assigned_partitions():
    def one(offset, *, desired=True):
        return {"next_offset": offset, "desired": desired, "app_offset": 3}

    positions = FetchPositions("t")
    positions(json.dumps({"topics": {"t": {"partitions": {"0": one(7), "1": one(9, desired=False), "2": one(-1001)}}}}))
    assert positions.offsets == {0: 7}
    positions(json.dumps({"topics": {}}))
    assert positions.offsets == {0: 7}
    positions("nonsense")
    assert positions.offsets == {}
