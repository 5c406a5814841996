"""Exclusive grants: one at a time, in the order of asking, and nobody later than he was told."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from dmpd.model.grant_queue import at_the_end, holders, is_rival, moved_up
from dmpd.model.grants import place
from tests.support.grants import RAES, S1, S2, USERS, at, grant

asks = st.tuples(st.sampled_from(USERS), st.sampled_from([S1, S2, None]), st.integers(1, 9), st.integers(0, 5))
steps = st.lists(st.tuples(st.just("ask"), asks) | st.tuples(st.just("revoke"), st.integers(0, 9)), max_size=14)


def play(found, step, number, now):
    """One request or revocation, as the store does it; returns the grants that are left."""
    what, value = step
    live = [one for one in found if one.over_at > now]
    if what == "ask":
        user, session, lasts, _ = value
        wanted = grant(f"{number:04}", user, session=session, level="exclusive", created=number)
        wanted = structs.replace(wanted, starts_at=now, ends_at=now + timedelta(minutes=lasts))
        return [*live, at_the_end(live, wanted)]
    if not live:
        return live
    gone = live[value % len(live)]
    live = [one for one in live if one.id != gone.id]
    moved = {one.id: one for one in moved_up(live, now)}
    return [moved.get(one.id, one) for one in live]


@given(steps, st.lists(st.integers(0, 3), min_size=14, max_size=14))
def test_no_two_commanders_and_nobody_is_put_off(history, waits):
    found, minute = [], 0
    for number, step in enumerate(history):
        minute += waits[number]
        before = {one.id: one for one in found}
        found = play(found, step, number, at(minute))
        for one in found:
            assert holders(found, one) == [], "two at a time"
            if one.id in before:
                assert one.starts_at <= before[one.id].starts_at, "put off"
                assert one.ends_at - one.starts_at == before[one.id].ends_at - before[one.id].starts_at
                if before[one.id].starts_at <= at(minute):
                    assert one == before[one.id], "moved though it had begun"
        for one in found:
            for other in found:
                if is_rival(one, other) and place(one) < place(other):
                    assert one.starts_at <= other.starts_at, "passed by somebody who asked later"


@given(steps)
def test_when_the_holder_gives_up_the_next_one_begins_at_once(history):
    """Of a queue for one session: nothing lies between two windows, nor before the first."""
    found = []
    for number, (what, value) in enumerate(history):
        step = (what, (value[0], S1, *value[2:])) if what == "ask" else (what, value)
        found = play(found, step, number, at(0))
    ordered = sorted(found, key=lambda one: one.starts_at)
    if ordered:
        assert ordered[0].starts_at == at(0)
    for following in ordered[1:]:
        if following.starts_at > at(0):
            assert any(other.ends_at == following.starts_at for other in ordered if is_rival(other, following))


def test_a_short_request_does_not_pass_a_long_one_that_came_before():
    """A gap in which only the later one would fit stays a gap: the longer one wants both sessions."""
    holder = grant("1", "u-a", level="exclusive", end=10)
    both = at_the_end([holder], grant("2", "u-b", session=None, level="exclusive", end=5, created=0.1))
    short = at_the_end([holder, both], grant("3", "u-c", session=S2, level="exclusive", end=2, created=0.2))
    assert (both.starts_at, short.starts_at) == (at(10), at(15))
    assert moved_up([holder, both, short], at(1)) == []
    gone = moved_up([both, short], at(1))
    assert [(one.id, one.starts_at) for one in gone] == [("2", at(1)), ("3", at(6))]


def test_rivals_are_others_who_want_a_common_session_alone():
    mine = grant("1", "u-a", level="exclusive")
    assert is_rival(mine, grant("2", "u-b", level="exclusive"))
    assert is_rival(mine, grant("2", "u-b", level="exclusive", session=None))
    assert not is_rival(mine, grant("2", "u-b", level="exclusive", session=S2))
    assert not is_rival(mine, grant("2", "u-a", level="exclusive"))
    assert not is_rival(mine, grant("2", "u-b", level="command"))
    assert not is_rival(mine, grant("2", "u-b", level="exclusive", rae=RAES[1]))
