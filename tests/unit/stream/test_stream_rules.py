"""The checker of the rebalance tests finds what is planted."""

import pytest

from tests.support.stream_record import Handled
from tests.support.stream_rules import first_after, repeats, silence_s, violations

GOOD = [
    Handled("one-0-11", 0, 0, "a", 0, 1.0),
    Handled("one-0-11", 0, 1, "b", 0, 1.0),
    Handled("one-0-11", 0, 2, "a", 1, 1.5),
    Handled("two-0-12", 0, 1, "b", 0, 4.0),  # the next owner repeats what was not committed
    Handled("two-0-12", 0, 2, "a", 1, 4.0),
    Handled("two-0-12", 0, 3, "a", 2, 4.5),
]


def test_a_good_history_with_repeats_is_good():
    assert violations(GOOD, {0: 4}) == []
    assert repeats(GOOD) == 2


@pytest.mark.parametrize(
    ("history", "produced", "sentence"),
    [
        (GOOD, {0: 6}, "partition 0: 2 never handled, the first is 4"),
        (GOOD, {0: 4, 1: 1}, "partition 1: 1 never handled, the first is 0"),
        ([*GOOD, GOOD[4]._replace(at_s=5.0)], {0: 4}, "two-0-12: offset 2 after 3"),
        ([*GOOD, GOOD[5]._replace(offset=4, nth=1, at_s=5.0)], {0: 5}, "two-0-12: key a number 1 after 2"),
        ([GOOD[0], *GOOD[2:]], {0: 4}, "one-0-11: partition 0 offset 2 before 1"),
    ],
)
def test_what_is_planted_is_found(history, produced, sentence):
    assert sentence in violations(history, produced)


def test_silence_and_takeover_are_measured():
    assert silence_s(GOOD, 0, 1.0, 4.5) == 2.5
    assert silence_s(GOOD, 0, 1.0, 9.0) == 4.5, "silent to the end counts"
    assert silence_s(GOOD, 1, 1.0, 9.0) == 8.0
    assert first_after(GOOD, 0, 1.2) == 1.5
    assert first_after(GOOD, 0, 1.2, by="two-") == 4.0
    assert first_after(GOOD, 1, 1.2) is None
