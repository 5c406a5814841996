"""From what was seen to the facts: nothing is broken that was merely not seen, nothing quick that had to wait."""

import zlib

from dmpd.canary.crowd import Connected, Told
from dmpd.canary.history import UNANSWERED, History
from dmpd.canary.plan import Plan, payload
from dmpd.canary.report import Counted, Former, Reason
from dmpd.canary.seen import begun, facts_of
from dmpd.canary.settings import CanarySettings
from dmpd.canary.verdict import judge

SETTINGS = CanarySettings(clients=2, control_clients=1)
PLAN = Plan(run="00000000-0000-0000-0000-000000000001", seed=1, epoch=9, first=1, last=2, changes=4, started_ms=1)
CONTROL = Plan(run=PLAN.run, seed=1, epoch=9, first=3, last=3, changes=60, started_ms=1)
S = 1_000_000_000
NOTHING = Counted()


def told(history, **more):
    return Told(
        part=history.export(),
        **dict.fromkeys(("holes", "disconnects", "leftovers"), NOTHING)
        | ({"unsent": 0, "refusals": 0, "behind_s": 0.0, "answered": 0, "cpu_s": 0.0, "rss_bytes": 0} | more),
    )


def connected(clients, *, errors=NOTHING):
    return Connected(
        clients=clients,
        codes={"0x00": clients},
        errors=errors,
        syn_retries=0,
        anew=2,
        tcp_s=[0.1] * clients,
        tls_s=[0.2] * clients,
        connack_s=[0.3] * clients,
        took_s=1.0,
    )


def sent(history, number, slot, at_s):
    history.note_sent(number, slot, zlib.crc32(payload(history.plan, number, slot, 1)), int(at_s * S))
    history.note_acked(number, slot, 0, int((at_s + 0.01) * S))


def arrived(arrivals, number, slot, at_s):
    arrivals.note(number, slot, zlib.crc32(payload(arrivals.plan, number, slot, 1)), int(at_s * S), "here")


def whole(*, arrive=True, drained=True):
    """A run of two clients, whose messages were sent a second apart."""
    seen = begun(SETTINGS, PLAN, CONTROL, [])
    for number in PLAN.numbers:
        for slot in range(PLAN.slots):
            sent(seen.history, number, slot, 100 + slot)
            if arrive:
                arrived(seen.arrivals, number, slot, 100.5 + slot)
    seen.connected, seen.drained, seen.closed = [connected(2)], drained, drained
    seen.told = [told(seen.history)]
    return seen


def test_a_run_that_was_cut_short_calls_nothing_lost():
    facts = facts_of(whole(arrive=False, drained=False), SETTINGS, [])
    assert (facts.lost.count, facts.unsettled) == (0, 2 * PLAN.slots)
    assert facts_of(whole(arrive=False), SETTINGS, []).lost.count == 2 * PLAN.slots


def test_without_the_clients_own_account_nothing_is_called_wrong():
    seen = whole()
    seen.told = ()
    facts = facts_of(seen, SETTINGS, [])
    assert (facts.wrong.count, facts.sent, facts.arrived) == (0, 0, 0)
    assert judge(facts, SETTINGS.thresholds, [])[0] == "unknown"


def test_a_run_that_never_came_to_its_ramp_judges_nobody():
    facts = facts_of(begun(SETTINGS, PLAN, CONTROL, []), SETTINGS, [])
    word, reasons = judge(facts, SETTINGS.thresholds, [])
    assert word == "unknown"
    assert not [reason for reason in reasons if reason.word == "fail"]


def test_what_waited_together_is_not_as_quick_as_the_youngest():
    seen = whole()
    seen.applied_ns = {(1, 5): int(105.2 * S)}  # revs 1 to 5, sent at 101 to 105, in one row at last
    row = facts_of(seen, SETTINGS, []).times["row"]
    assert (row.n, row.max) == (5, 4.2)


def test_the_control_group_is_told_apart_by_when_it_sent():
    seen = whole()
    seen.marks = {"control": 100.0, "ramp": 110.0, "drained": 120.0, "over": 130.0}
    for rev, at_s, took_s in ((2, 105, 0.1), (3, 115, 0.4), (4, 125, 0.2), (5, 135, 9.0)):
        sent(seen.control_history, 3, rev, at_s)
        seen.applied_ns = dict(seen.applied_ns) | {(3, rev): int((at_s + took_s) * S)}
    sent(seen.control_history, 3, 1, 103)  # how it onboarded is another matter; its row was first seen with rev 2
    seen.others_s = [(99.0, 9.0), (105.0, 1.0), (112.0, 2.0), (121.0, 3.0), (130.0, 9.0)]
    facts = facts_of(seen, SETTINGS, [])
    assert {name: one.max for name, one in facts.control.items()} == {"before": 0.1, "during": 0.4, "after": 0.2}
    assert {name: (one.n, one.max) for name, one in facts.raes.items()} == {
        "before": (1, 1.0),
        "during": (1, 2.0),
        "after": (1, 3.0),
    }


def test_what_one_process_says_of_broken_connections_does_not_undo_what_another_said():
    whole_crowd = History(PLAN)
    for number in PLAN.numbers:
        part = History(PLAN.part(number, number))
        sent(part, number, 2, 100)
        part.broken.add(number)
        whole_crowd.take(part.export())
    assert not any(whole_crowd.promised(number, 2) for number in PLAN.numbers)


def found(example):
    return Counted(count=1, examples=(example,))


def noted(finding, example):
    finding.add(example)


def test_all_that_was_found_anywhere_is_in_the_facts():
    seen = whole()
    seen.control_told = told(
        seen.control_history, holes=found("c hole"), disconnects=found("c gone"), leftovers=found("c left")
    )
    seen.told = [
        told(
            seen.history, holes=found("hole"), disconnects=found("gone"), leftovers=found("left"), refusals=3, unsent=6
        )
    ]
    seen.control_connected = [connected(0, errors=found("c stayed out"))]
    noted(seen.leftovers, "open")
    noted(seen.wrong_rows, "row")
    noted(seen.rows_behind, "behind")
    noted(seen.requests_unanswered, "silent")
    noted(seen.arrivals.wrong, "wrong")
    noted(seen.arrivals.reordered, "order")
    noted(seen.arrivals.duplicates, "again")
    noted(seen.control_arrivals.wrong, "c wrong")
    noted(seen.control_arrivals.reordered, "c order")
    sent(seen.control_history, 3, 2, 100)  # and never came
    seen.history.note_acked(1, 3, 0x87, 200 * S)
    seen.deaths, seen.cleaned, seen.swept, seen.unswept, seen.compared = 2, 1, 4, 5, 2
    seen.lag_max, seen.sys_before, seen.sys_after = 8, {"retained": 1}, {"retained": 2}
    seen.former = [Former(run="r", started_at="t", host="h")]
    seen.problems = [Reason(name="mine", word="unknown", sentence="x")]
    facts = facts_of(seen, SETTINGS, [Reason(name="other", word="unknown", sentence="x")])
    assert facts.acl_holes.examples == ["hole", "c hole"]
    assert facts.leftovers.examples == ["left", "c left", "open"]
    assert facts.disconnects.examples == ["gone"]
    assert facts.control_disconnects.examples == ["c gone"]
    assert facts.control_connect_errors.examples == ["c stayed out"]
    assert facts.wrong.examples == ["wrong", "c wrong", "row"]
    assert facts.reordered.examples == ["order", "c order"]
    assert facts.duplicates.examples == ["again"]
    assert facts.rows_behind.examples == ["behind"]
    assert facts.requests_unanswered.examples == ["silent"]
    assert facts.control_lost.examples == ["canary-0003 seq 2 rev 2"]
    assert facts.refused.examples == ["canary-0001 seq 3: PUBACK 0x87"]
    assert (facts.worker_deaths, facts.cleaned, facts.swept, facts.rows_compared) == (2, 1, 4, 2)
    assert (facts.probes, facts.probes_expected) == (3, 8)
    assert (facts.unsent, facts.unswept, facts.lag_max) == (6, 5, 8)
    assert facts.broker == {"before": {"retained": 1}, "after": {"retained": 2}}
    assert [one.run for one in facts.former] == ["r"]
    assert [one.name for one in facts.problems] == ["mine", "other"]


def test_what_nobody_answered_or_took_of_the_control_group_counts_too():
    seen = whole()
    sent(seen.control_history, 3, 2, 100)
    seen.control_history.note_acked(3, 2, 0x97, 101 * S)  # quota exceeded
    sent(seen.control_history, 3, 3, 101)
    seen.control_history.note_acked(3, 3, UNANSWERED, 0)
    seen.control_told = told(seen.control_history, unsent=2)
    facts = facts_of(seen, SETTINGS, [])
    assert facts.refused.examples == ["canary-0003 seq 2: PUBACK 0x97"]
    assert (facts.unsent, facts.unsettled, facts.sent) == (2, 2, 2 * PLAN.slots)


def test_of_a_control_group_that_was_cut_off_nothing_is_lost():
    seen = whole()
    seen.closed = False
    seen.control_told = told(seen.control_history)
    sent(seen.control_history, 3, 2, 100)  # a moment ago
    assert facts_of(seen, SETTINGS, []).control_lost.count == 0
    seen.closed = True
    assert facts_of(seen, SETTINGS, []).control_lost.count == 1


def test_requests_that_had_no_time_to_be_answered_are_not_unanswered():
    seen = whole(drained=False)
    noted(seen.requests_unanswered, "silent")
    assert facts_of(seen, SETTINGS, []).requests_unanswered.count == 0


def test_lateness_counts_to_kafka_and_to_the_row():
    seen = whole()
    arrived(seen.arrivals, 1, 5, 100)  # again, which changes nothing
    seen.applied_ns = {(1, 5): int(135.2 * S), (2, 2): int(102.5 * S)}
    late = facts_of(seen, SETTINGS, []).late
    assert late.examples == [
        f"canary-0001 rev {rev}: in its row after {135.2 - 100 - rev:.1f} s" for rev in range(1, 6)
    ]


def test_the_lag_is_over_so_long_after_the_flash():
    seen = whole()
    assert facts_of(seen, SETTINGS, []).lag_zero_s is None
    seen.marks = {"flash over": 120.0}
    seen.lag_done_s = 121.5
    assert facts_of(seen, SETTINGS, []).lag_zero_s == 1.5


def test_rates_and_sums_are_those_of_all_processes():
    seen = whole()
    seen.flash_s = 2.0
    seen.told = [told(seen.history, cpu_s=1.5, behind_s=0.2, refusals=3), told(seen.history, cpu_s=2.0, rss_bytes=7)]
    facts = facts_of(seen, SETTINGS, [])
    assert (facts.connects_per_s, facts.messages_per_s) == (2.0, 5.0)
    assert (facts.crowd_cpu_s, facts.crowd_rss_bytes, facts.runner_behind_s, facts.probes) == (3.5, 7, 0.2, 3)
    assert facts.times["connect"].p50 == 0.6
