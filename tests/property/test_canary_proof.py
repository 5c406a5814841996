"""The canary's proof finds exactly what was done to the messages, whatever the order of the rest."""

import random
import uuid
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.canary.arrivals import Arrivals
from dmpd.canary.history import History
from dmpd.canary.plan import Plan, expected_row, message, payload, rev_of, session_of, topic_of
from dmpd.model.codec import decode
from dmpd.model.topics import parse_topic

PLAN = Plan(run=str(uuid.UUID(int=7)), seed=1, epoch=1000, first=1, last=4, changes=3, started_ms=1_700_000_000_000)
EVERYTHING = [(number, slot) for number in PLAN.numbers for slot in range(PLAN.slots)]
CRC = {key: zlib.crc32(payload(PLAN, *key, 5)) for key in EVERYTHING}
some = st.sets(st.sampled_from(EVERYTHING))


def told(*, unsent=frozenset(), unacked=frozenset(), broken=frozenset()) -> History:
    history = History(PLAN)
    for at, (number, slot) in enumerate(EVERYTHING):
        if (number, slot) in unsent:
            continue
        history.note_sent(number, slot, CRC[number, slot], at + 1)
        if (number, slot) not in unacked:
            history.note_acked(number, slot, 0, at + 1001)
    history.broken.update(broken)
    return history


def delivered(draw_seed, records):
    """Records in an order that keeps each topic's: what a right pipeline may do."""
    generator = random.Random(draw_seed)
    topics = {}
    for number, slot in records:
        topics.setdefault(topic_of(PLAN, number, slot), []).append((number, slot))
    arrivals, at_ns = Arrivals(PLAN), 10_000
    while topics:
        topic = generator.choice(sorted(topics))
        number, slot = topics[topic].pop(0)
        if not topics[topic]:
            del topics[topic]
        at_ns += 1
        arrivals.note(number, slot, CRC[number, slot], at_ns, f"at {at_ns}")
    return arrivals


def counts(checked):
    names = ("lost", "wrong", "reordered", "duplicates", "late", "refused")
    return {name: getattr(checked, name).count for name in names if getattr(checked, name).count}


@settings(deadline=None)
@given(st.integers())
def test_a_right_pipeline_is_found_right(seed):
    arrivals = delivered(seed, EVERYTHING)
    history = told()
    checked = arrivals.check(history, late_after_s=1.0)
    assert counts(checked) == {}
    assert checked.sent == checked.acked == checked.arrived == len(EVERYTHING)
    assert arrivals.missing(history) == 0


@settings(deadline=None)
@given(st.integers(), some)
def test_what_is_dropped_is_lost(seed, dropped):
    arrivals = delivered(seed, [key for key in EVERYTHING if key not in dropped])
    checked = arrivals.check(told(), late_after_s=1.0)
    assert counts(checked) == ({"lost": len(dropped)} if dropped else {})
    assert arrivals.missing(told()) == len(dropped)
    for number, rev in zip(PLAN.numbers, arrivals.revs, strict=True):
        assert rev == max((slot for slot in arrivals.slots_of(number) if slot < PLAN.event_slot), default=0)


@settings(deadline=None)
@given(st.integers(), some, st.sets(st.integers(1, 4)))
def test_nothing_is_lost_that_nobody_vouched_for(seed, unacked, broken):
    arrivals = delivered(seed, [key for key in EVERYTHING if key not in unacked and key[0] not in broken])
    checked = arrivals.check(told(unacked=unacked, broken=broken), late_after_s=1.0)
    assert counts(checked) == {}
    assert checked.unsettled == len({key for key in EVERYTHING if key in unacked or key[0] in broken})


@settings(deadline=None)
@given(st.integers(), some)
def test_durable_is_a_promise_also_of_a_broken_connection(seed, durable):
    history = told(broken={1, 2, 3, 4})
    for number, slot in durable:
        history.note_durable(number, slot, slot, 5)
    assert counts(delivered(seed, []).check(history, late_after_s=1.0)) == ({"lost": len(durable)} if durable else {})


@settings(deadline=None)
@given(st.integers(), some)
def test_duplicates_are_counted_and_nothing_else(seed, again):
    arrivals = delivered(seed, EVERYTHING)
    for number, slot in again:
        arrivals.note(number, slot, CRC[number, slot], 99_999, "again")
    assert counts(arrivals.check(told(), late_after_s=1.0)) == ({"duplicates": len(again)} if again else {})


@settings(deadline=None)
@given(st.integers(), some)
def test_what_comes_again_altered_is_wrong_though_it_came_right_at_first(seed, again):
    arrivals = delivered(seed, EVERYTHING)
    for number, slot in again:
        arrivals.note(number, slot, CRC[number, slot] ^ 1, 99_999, "again")
    expected = {"wrong": len(again), "duplicates": len(again)} if again else {}
    assert counts(arrivals.check(told(), late_after_s=1.0)) == expected


@settings(deadline=None)
@given(st.integers(), some)
def test_altered_and_never_sent_are_wrong(seed, touched):
    arrivals = Arrivals(PLAN)
    for number, slot in EVERYTHING:
        arrivals.note(number, slot, CRC[number, slot] ^ ((number, slot) in touched), 10_000, "here")
    assert counts(arrivals.check(told(), late_after_s=1.0)) == ({"wrong": len(touched)} if touched else {})
    unsent = delivered(seed, EVERYTHING).check(told(unsent=touched), late_after_s=1.0)
    assert counts(unsent) == ({"wrong": len(touched)} if touched else {})


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, PLAN.closed_slot - 1))
def test_two_that_change_places_are_one_out_of_order(number, slot):
    arrivals = Arrivals(PLAN)
    order = list(EVERYTHING)
    at = order.index((number, slot))
    order[at], order[at + 1] = order[at + 1], order[at]
    for key in order:
        arrivals.note(*key, CRC[key], 10_000, "here")
    checked = arrivals.check(told(), late_after_s=1.0)
    assert counts(checked) == {"reordered": 1}
    assert f"canary-{number:04} seq {slot} behind {slot + 1}" in checked.reordered.examples[0]


def test_a_message_on_its_way_for_too_long_is_late():
    arrivals, history = Arrivals(PLAN), told()
    for number, slot in EVERYTHING:
        sent_ns = history.sent_ns[history.place(number, slot)]
        late_ns = 3_000_000_000 if (number, slot) == (2, 3) else 1_000_000_000
        arrivals.note(number, slot, CRC[number, slot], sent_ns + late_ns, "here")
    checked = arrivals.check(history, late_after_s=2.0)
    assert counts(checked) == {"late": 1}
    assert checked.late.examples == ["canary-0002 seq 3 rev 3: in Kafka after 3.0 s"]


def test_a_refused_publish_is_named_with_its_code():
    history = told()
    history.note_acked(3, 2, 0x87, 9_999)
    checked = delivered(1, EVERYTHING).check(history, late_after_s=1.0)
    assert checked.refused.examples == ["canary-0003 seq 2: PUBACK 0x87"]


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(0, 3), some)
def test_a_part_of_the_history_comes_over_whole(first, more, unsent):
    last = min(first + more, 4)
    whole, part = told(unsent=unsent, broken={first}), History(PLAN.part(first, last))
    for number, slot in EVERYTHING:
        if first <= number <= last and (number, slot) not in unsent:
            at = whole.place(number, slot)
            part.note_sent(number, slot, whole.crc[at], whole.sent_ns[at])
            part.note_acked(number, slot, whole.code[at], whole.acked_ns[at])
    part.broken.add(first)
    empty = told(unsent=set(EVERYTHING))
    empty.take(part.export())
    for number in part.plan.numbers:
        low, high = whole.place(number, 0), whole.place(number, PLAN.slots - 1)
        for name in ("sent_ns", "acked_ns", "durable_ns", "code", "crc"):
            assert getattr(empty, name)[low : high + 1] == getattr(whole, name)[low : high + 1]
    assert empty.broken == {first}


@settings(deadline=None)
@given(st.integers(1, 9_999), st.integers(0, 2**31), st.integers(1, 12))
def test_every_message_is_one_that_the_cloud_takes_in_its_order(number, seed, changes):
    plan = Plan(run=PLAN.run, seed=seed, epoch=77, first=number, last=number, changes=changes, started_ms=1)
    revs = []
    for slot in range(plan.slots):
        decoded = decode(payload(plan, number, slot, 1), parse_topic(topic_of(plan, number, slot)))
        assert decoded == message(plan, number, slot, 1)
        revs += [decoded.rev] if rev_of(plan, slot) else []
    assert revs == list(range(1, changes + 3))
    row = expected_row(plan, number, range(1, plan.event_slot))
    assert (row.rev, row.stale, row.session) == (changes + 1, False, session_of(plan.run, number))
    assert expected_row(plan, number, range(plan.slots)).closed == "left"
