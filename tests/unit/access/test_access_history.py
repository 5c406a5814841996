"""The checker of the chaos test sees what must not be: it was a poor proof otherwise."""

import pytest

from tests.support.access_history import History, Outage, Window

KEY = ("u-a", "s")


def history(*, given=(), refused=(), outages=(), standstills=(), windows=((100, 110),)):
    found = History(late_s=1.0, early_s=2.0)
    found.windows[KEY] = [Window(start, end, revoked=False) for start, end in windows]
    found.given[KEY], found.refused[KEY] = list(given), list(refused)
    found.outages = [Outage("it was dead", start, healed) for start, healed in outages]
    found.standstills = [Outage("it was frozen", start, healed) for start, healed in standstills]
    return found


@pytest.mark.parametrize(
    ("facts", "count"),
    [
        ({"given": [100, 105, 110.9]}, 0),
        ({"given": [99.9]}, 1),
        ({"given": [111.1, 200]}, 2),
        ({"given": [111.1], "windows": [(100, 110), (111, 112)]}, 0),
        ({"given": [120], "windows": []}, 1),
        ({"given": [115.9], "outages": [(109, 115)]}, 0),
        ({"given": [116.1], "outages": [(109, 115)]}, 1),
        ({"given": [111.1], "outages": [(90, 109)]}, 1),
        ({"given": [111.5], "outages": [(111.2, 130)]}, 1),
        ({"given": [117.9], "outages": [(109, 115), (115.5, 117)]}, 0),
        ({"given": [99.9], "outages": [(90, 130)]}, 1),
        ({"given": [99.5], "standstills": [(99, 99.8)]}, 0),
        ({"given": [98.9, 99.9], "standstills": [(99, 99.8)]}, 2),
        ({"given": [98], "standstills": [(97, 98.9)]}, 1),
        ({"given": [111.5], "standstills": [(111.2, 130)]}, 1),
        ({"refused": [101.9, 110.1, 99]}, 0),
        ({"refused": [102.1]}, 1),
        ({"refused": [105], "outages": [(95, 104)]}, 0),
        ({"refused": [106.1], "outages": [(95, 104)]}, 1),
        ({"refused": [108.5], "outages": [(107, 107.5)]}, 0),
    ],
)
def test_what_must_not_be_is_found_and_nothing_else(facts, count):
    assert len(history(**facts).problems()) == count


def test_what_another_was_granted_counts_for_nobody_else():
    found = history(given=[105])
    found.given["u-b", "s"] = [105]
    assert [sentence.startswith("('u-b', 's') was given") for sentence in found.problems()] == [True]
