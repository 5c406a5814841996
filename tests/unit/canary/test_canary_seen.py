"""From what was seen to the facts: nothing is broken that was merely not seen, nothing quick that had to wait."""

import zlib

from dmpd.canary.crowd import Connected, Told
from dmpd.canary.plan import Plan, payload
from dmpd.canary.report import Counted
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
        holes=NOTHING,
        disconnects=NOTHING,
        leftovers=NOTHING,
        **({"unsent": 0, "refusals": 0, "behind_s": 0.0, "answered": 0, "cpu_s": 0.0, "rss_bytes": 0} | more),
    )


def connected(clients):
    return Connected(
        clients=clients,
        codes={"0x00": clients},
        errors=NOTHING,
        syn_retries=0,
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
    seen.connected, seen.drained = [connected(2)], drained
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
    control = facts_of(seen, SETTINGS, []).control
    assert {name: one.max for name, one in control.items()} == {"before": 0.1, "during": 0.4, "after": 0.2}


def test_rates_and_sums_are_those_of_all_processes():
    seen = whole()
    seen.flash_s = 2.0
    seen.told = [told(seen.history, cpu_s=1.5, behind_s=0.2, refusals=3), told(seen.history, cpu_s=2.0, rss_bytes=7)]
    facts = facts_of(seen, SETTINGS, [])
    assert (facts.connects_per_s, facts.messages_per_s) == (2.0, 5.0)
    assert (facts.crowd_cpu_s, facts.crowd_rss_bytes, facts.runner_behind_s, facts.probes) == (3.5, 7, 0.2, 3)
    assert facts.times["connect"].p50 == 0.6
