"""The epoch that follows another."""

import pytest

from dmpd.model.epochs import RANDOM_VALUES, is_raise_obeyed, next_epoch
from dmpd.model.limits import EPOCH_MAX

NOW_MS = 1_764_043_200_000


@pytest.mark.parametrize(
    ("last", "now_ms", "random_bits", "expected"),
    [
        (0, NOW_MS, 9, NOW_MS),
        (NOW_MS, NOW_MS, 9, NOW_MS + 10),
        (NOW_MS, NOW_MS - 1, 0, NOW_MS + 1),
        (0, 0, 9, 10),
        (0, -5, 0, 1),
        (NOW_MS, EPOCH_MAX + 1, 0, NOW_MS + 1),
        (EPOCH_MAX - 1, 0, 0, EPOCH_MAX),
    ],
    ids=[
        "first",
        "same millisecond",
        "clock back",
        "clock at 1970",
        "clock before 1970",
        "clock after 2100",
        "last one",
    ],
)
def test_next_epoch(last, now_ms, random_bits, expected):
    assert next_epoch(last, now_ms, random_bits) == expected


@pytest.mark.parametrize(("last", "random_bits"), [(EPOCH_MAX, 0), (-1, 0), (0, RANDOM_VALUES), (0, -1)])
def test_no_epoch_from_damage(last, random_bits):
    with pytest.raises(ValueError):
        next_epoch(last, NOW_MS, random_bits)


@pytest.mark.parametrize(
    ("own", "refused", "above", "obeyed"), [(5, 5, 6, True), (5, 4, 6, False), (5, 5, 5, False), (7, 5, 6, False)]
)
def test_epoch_raise_is_obeyed_once(own, refused, above, obeyed):
    assert is_raise_obeyed(own, refused=refused, above=above) == obeyed
