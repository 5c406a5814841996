"""What /status and the metrics tell of grants and rules."""

import re

import pytest

from dmpd.access import status
from dmpd.access.broker import Held
from dmpd.model.grants import rules
from dmpd.runtime import metrics
from tests.support.grants import at, grant

GRANTS = [grant("aaaa", end=60), grant("bbbb", "u-b", end=30), grant("cccc", start=20), grant("over", end=5)]
HELD = Held(
    base=True,
    rules={rule.grant: rule for rule in rules(GRANTS, at(1))} | {"role:x": None},
    users={"u-a": frozenset(), "u-b": frozenset()},
)


def measured():
    found = re.findall(r"^dmpd_access_(\w+) ([-+.e\d]+)$", metrics.render().decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def told(grants=GRANTS, held=HELD, missing=3, success_age_s=1.23456):
    return status.told(now=at(10), held=held, grants=grants, missing=missing, success_age_s=success_age_s)


def test_what_holds_and_what_comes_next():
    said = told()
    assert said == {
        "grants_in_force": 2,
        "rules": 4,
        "users": 2,
        "difference": 3,
        "success_age_s": 1.235,
        "next_end_s": 20 * 60,
    }
    found = measured()
    assert (found["grants_in_force"], found["rules"], found["difference"]) == (2, 4, 3)
    assert (found["next_end_seconds"], found["success_age_seconds"]) == (20 * 60, 1.23456)


@pytest.mark.parametrize(("held", "next_end_s"), [(HELD, -5 * 60), (None, -1)])
def test_without_the_database_the_brokers_rules_say_what_ends_next(held, next_end_s):
    said = told(grants=None, held=held)
    assert (said["grants_in_force"], said["next_end_s"]) == (0, next_end_s)
    assert measured()["next_end_seconds"] == next_end_s


def test_before_anything_was_read_and_when_nothing_ends():
    assert told(grants=None, held=None, missing=0, success_age_s=None)["rules"] is None
    assert (measured()["rules"], measured()["success_age_seconds"]) == (0, -1)
    assert told(grants=[])["next_end_s"] == -1
