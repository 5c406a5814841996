"""Each fact beyond its threshold has its own reason; what was not proved is not passed."""

import pytest
from msgspec import structs

from dmpd.canary.report import Counted, Facts, Former, Reason, p99s
from dmpd.canary.settings import ThresholdSettings
from dmpd.canary.summary import Summary, summarize
from dmpd.canary.verdict import judge
from tests.support.canary_reports import GOOD, QUICK

LIMITS = ThresholdSettings()
ONE = Counted(count=1, examples=("canary-0001 seq 3",))


def slow(value_s, n=100):
    return summarize([value_s] * n)


def test_what_was_proved_and_kept_to_is_passed():
    assert judge(GOOD, LIMITS, []) == ("pass", [])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"lost": ONE}, "lost"),
        ({"wrong": ONE}, "wrong"),
        ({"reordered": ONE}, "reordered"),
        ({"late": ONE}, "late"),
        ({"rows_behind": ONE}, "rows_behind"),
        ({"refused": ONE}, "publish_refused"),
        ({"requests_unanswered": ONE}, "requests_unanswered"),
        ({"acl_holes": ONE}, "acl_hole"),
        ({"leftovers": ONE}, "leftovers"),
        ({"control_lost": ONE}, "control_lost"),
        ({"connected": 9}, "connect_failed"),
        ({"control_connect_errors": ONE}, "control_connect_failed"),
        ({"disconnects": ONE}, "disconnects"),
        ({"control_disconnects": ONE}, "control_disconnects"),
        ({"times": {**GOOD.times, "row": slow(15.1)}}, "end_to_end_slow"),
        ({"lag_zero_s": 10.1}, "lag"),
        ({"control": {**GOOD.control, "during": slow(1.1)}}, "control_slow"),
        ({"control": {**GOOD.control, "during": slow(10.1)}, "ramp": "herd"}, "control_slow"),
        ({"control": {**GOOD.control, "after": slow(0.3)}}, "control_not_recovered"),
    ],
)
def test_each_thing_beyond_its_threshold_fails_by_its_name(changes, name):
    word, reasons = judge(structs.replace(GOOD, **changes), LIMITS, [])
    assert word == "fail"
    assert [reason.name for reason in reasons if reason.word == "fail"] == [name]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"arrived": 0}, "nothing_seen"),
        ({"rows_compared": 9}, "rows_not_compared"),
        ({"times": {}}, "rows_not_timed"),
        ({"times": {**GOOD.times, "row": slow(0.1, n=9)}}, "rows_not_timed"),
        ({"unsettled": 1, "sent": 131}, "unsettled"),
        ({"unsent": 1}, "unsettled"),
        ({"lag_zero_s": None}, "lag_unknown"),
        ({"control": {"before": QUICK, "during": QUICK}}, "control_unknown"),
        ({"control": {"before": QUICK, "after": QUICK}}, "control_unknown"),
        ({"control": {"during": QUICK, "after": QUICK, "before": Summary()}}, "control_unknown"),
        ({"cleaned": 9}, "cleanup_unknown"),
        ({"probes": 7}, "probes_unknown"),
        ({"runner_behind_s": 5.1}, "runner_overloaded"),
        ({"runner_behind_s": 5.1, "times": {**GOOD.times, "row": slow(99.0)}}, "runner_overloaded"),
        ({"runner_behind_s": 5.1, "late": ONE}, "runner_overloaded"),
        ({"problems": (Reason(name="database_unreachable", word="unknown", sentence="x"),)}, "database_unreachable"),
    ],
)
def test_what_was_not_proved_is_unknown_and_no_pass(changes, name):
    word, reasons = judge(structs.replace(GOOD, **changes), LIMITS, [])
    assert (word, [reason.name for reason in reasons]) == ("unknown", [name])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"worker_deaths": 1}, "worker_deaths"),
        ({"former": (Former(run="r", started_at="t", host="h"),)}, "former_run_died"),
        ({"swept": 3}, "former_left_sessions"),
        ({"unswept": 1}, "former_sessions_stay"),
        ({"broker": {"before": {"retained": 1}, "after": {"retained": 7}}}, "broker_counts_grew"),
        ({"broker": {"before": {"subscriptions": 9}, "after": {"subscriptions": 15}}}, "broker_counts_grew"),
    ],
)
def test_what_is_odd_but_kept_to_is_degraded(changes, name):
    word, reasons = judge(structs.replace(GOOD, **changes), LIMITS, [])
    assert (word, [reason.name for reason in reasons]) == ("degraded", [name])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"disconnects": ONE, "unsettled": 1, "unsent": 2}, "disconnects"),
        ({"control_disconnects": ONE, "unsettled": 1}, "control_disconnects"),
        ({"refused": ONE, "unsettled": 1}, "publish_refused"),
        ({"acl_holes": ONE, "probes": 7}, "acl_hole"),
        (
            {"arrived": 0, "cleaned": 0, "problems": (Reason(name="time_box", word="unknown", sentence="x"),)},
            "time_box",
        ),
    ],
)
def test_what_explains_the_rest_is_the_only_reason(changes, name):
    assert [reason.name for reason in judge(structs.replace(GOOD, **changes), LIMITS, [])[1]] == [name]


def test_a_few_that_came_meanwhile_are_no_leftovers_of_a_crowd():
    facts = structs.replace(
        GOOD, broker={"before": {"subscriptions": 8}, "after": {"subscriptions": 13, "retained": 9}}
    )
    assert judge(facts, LIMITS, [])[0] == "pass"


def test_broken_outranks_unproved_outranks_odd():
    facts = structs.replace(GOOD, lost=ONE, lag_zero_s=None, worker_deaths=1)
    word, reasons = judge(facts, LIMITS, [])
    assert word == "fail"
    assert [reason.word for reason in reasons] == ["fail", "unknown", "degraded"]
    assert reasons[0].examples == ONE.examples


def test_a_herd_has_its_own_time_for_the_control_group():
    facts = structs.replace(GOOD, ramp="herd", control={**GOOD.control, "during": slow(4.9)})
    assert judge(facts, LIMITS, [])[0] == "pass"


def test_a_ratio_of_small_numbers_means_nothing():
    facts = structs.replace(GOOD, control={"before": slow(0.01), "during": QUICK, "after": slow(0.2)})
    assert judge(facts, LIMITS, [])[0] == "pass"


def test_the_control_group_is_held_against_its_own_time_before_the_crowd():
    def word(after_s):
        control = {"before": slow(0.4), "during": QUICK, "after": slow(after_s)}
        return judge(structs.replace(GOOD, control=control), LIMITS, [])[0]

    assert (word(0.79), word(0.81)) == ("pass", "fail")


def test_so_many_as_the_threshold_says_are_allowed():
    limits = structs.replace(LIMITS, lost_max=2, disconnects_max=1, connect_success_min=0.9)
    facts = structs.replace(GOOD, lost=Counted(count=2), disconnects=ONE, connected=9, rows_compared=9, cleaned=9)
    assert judge(facts, limits, [])[0] == "pass"
    assert judge(structs.replace(facts, lost=Counted(count=3)), limits, [])[0] == "fail"


def test_three_times_of_very_little_is_not_slow():
    facts = structs.replace(GOOD, times={**GOOD.times, "row": slow(0.2)})
    assert judge(facts, LIMITS, [{"row": 0.01}] * 20)[0] == "pass"


def test_slower_than_usual_is_degraded_once_there_is_a_usual():
    facts = structs.replace(GOOD, times={**GOOD.times, "row": slow(0.9)})
    usual = [{"row": 0.1, "puback": 0.05}] * 4
    assert judge(facts, LIMITS, usual)[0] == "pass"
    word, reasons = judge(facts, LIMITS, [*usual, {"row": 0.2}])
    assert (word, [reason.name for reason in reasons]) == ("degraded", ["slower_than_usual_row"])
    assert judge(facts, LIMITS, [{"row": 0.5}] * 20)[0] == "pass"


def test_an_overloaded_runners_times_are_held_against_no_others():
    facts = structs.replace(GOOD, runner_behind_s=5.1, times={**GOOD.times, "row": slow(0.9)})
    word, reasons = judge(facts, LIMITS, [{"row": 0.1}] * 20)
    assert (word, [reason.name for reason in reasons]) == ("unknown", ["runner_overloaded"])


def test_only_as_many_runs_as_configured_make_the_usual():
    facts = structs.replace(GOOD, times={**GOOD.times, "row": slow(0.9)})
    runs = [{"row": 0.9}] * 20 + [{"row": 0.01}] * 200
    assert judge(facts, LIMITS, runs)[0] == "pass"


def test_the_p99s_are_those_that_were_measured():
    assert set(p99s(GOOD)) == {"connect", "puback", "kafka", "row", "control_during"}
    assert p99s(Facts()) == {}
