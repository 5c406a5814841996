"""Who may see and command what: laws that hold for any grants at any time."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from dmpd.model.grants import may_command, may_see, next_change_at, rules, state_of
from dmpd.model.topics import RAE_SESSION
from tests.support.grants import RAES, S1, S2, USERS, at, grant, grants

PLACES = [(rae, session) for rae in RAES for session in (S1, S2, RAE_SESSION, "unnamed")]
minutes = st.integers(0, 19)


def allowed_by_rules(found, now):
    """What the rules say, read as a broker reads them: per user, what he sees and what he commands."""
    seen, commanded, denied = set(), set(), set()
    for rule in rules(found, now):
        for rae, session in PLACES:
            if rule.rae == rae and rule.session in (None, session):
                seen.add((rule.user, rae, session))
                if rule.command and not (rule.session is None and session == RAE_SESSION):
                    commanded.add((rule.user, rae, session))
                if rule.command and session in rule.suspended:
                    denied.add((rule.user, rae, session))
    return seen, commanded - denied


@given(grants(), minutes)
def test_the_rules_are_what_one_by_one_may_be_seen_and_commanded(found, minute):
    now = at(minute)
    seen, commanded = allowed_by_rules(found, now)
    for user in USERS:
        for rae, session in PLACES:
            assert ((user, rae, session) in seen) == may_see(found, user, rae, session, now)
            assert ((user, rae, session) in commanded) == may_command(found, user, rae, session, now)


@given(grants(), minutes)
def test_nobody_is_allowed_anything_but_by_a_grant_in_force(found, minute):
    now = at(minute)
    for user in USERS:
        for rae, session in PLACES:
            own = [one for one in found if one.user == user and one.is_in_force(now)]
            assert may_see(found, user, rae, session, now) == any(one.covers(rae, session) for one in own)
            if may_command(found, user, rae, session, now):
                assert any(one.commands and one.covers(rae, session) for one in own)


@given(grants(), minutes)
def test_while_somebody_holds_it_alone_nobody_else_commands(found, minute):
    """The older one of two, which the store never makes."""
    now = at(minute)
    for rae, session in PLACES:
        alone = [
            one
            for one in found
            if one.level == "exclusive" and one.is_in_force(now) and one.covers(rae, session) and session != RAE_SESSION
        ]
        able = [user for user in USERS if may_command(found, user, rae, session, now)]
        if alone:
            assert able == [min(alone, key=lambda one: (one.created_at, one.id)).user]
        else:
            may = [one for one in found if one.commands and one.is_in_force(now) and one.covers(rae, session)]
            named = {one.user for one in may if one.session is not None or session != RAE_SESSION}
            assert set(able) == named, "everybody who was given it"


@given(grants(), minutes, st.data())
def test_revoking_one_of_two_leaves_what_the_other_gives(found, minute, data):
    """The same grant twice: nothing changes when one of them is revoked."""
    if not found:
        return
    one = data.draw(st.sampled_from(found))
    again = structs.replace(one, id="twin")
    now = at(minute)
    revoked = [structs.replace(other, ended_at=now) if other.id == one.id else other for other in found]
    for rae, session in PLACES:
        for user in USERS:
            both = [*found, again]
            assert may_see(both, user, rae, session, now) == may_see([*revoked, again], user, rae, session, now)
            assert may_command(both, user, rae, session, now) == may_command([*revoked, again], user, rae, session, now)


@given(grants(), minutes, minutes)
def test_the_rules_are_a_function_of_the_time_alone(found, before, now):
    """Whatever the clock said before, steps forward and back included: the same instant, the same rules."""
    rules(found, at(before))
    assert rules(found, at(now)) == rules(list(reversed(found)), at(now))


@given(grants(), minutes)
def test_between_two_changes_the_rules_stay(found, minute):
    now = at(minute)
    change = next_change_at(found, now)
    later = now + timedelta(days=9) if change is None else change - timedelta(microseconds=1)
    assert rules(found, now) == rules(found, later)


@given(grants(), minutes)
def test_what_is_over_counts_for_nothing(found, minute):
    now = at(minute)
    assert rules(found, now) == rules([one for one in found if now < one.over_at], now)


def test_a_start_in_the_future_gives_nothing_before():
    later = grant(level="command", start=10)
    assert state_of(later, at(9)) == "future"
    assert not may_see([later], "u-a", "R1", S1, at(9.999))
    assert may_command([later], "u-a", "R1", S1, at(10))
    assert not may_command([later], "u-a", "R1", S1, at(60))
    assert state_of(later, at(60)) == "ended"


def test_a_revoked_grant_gives_nothing_from_then_on():
    revoked = grant(level="exclusive", end=60, ended_at=at(10))
    assert may_command([revoked], "u-a", "R1", S1, at(9.999))
    assert next_change_at([revoked], at(9)) == at(10)
    assert not may_see([revoked], "u-a", "R1", S1, at(10))
    assert rules([revoked], at(10)) == []
    assert state_of(revoked, at(10)) == "ended"
    assert may_command([revoked, grant("bbbb", "u-b", level="command")], "u-b", "R1", S1, at(10))


def test_a_grant_does_not_follow_a_merge():
    """The session it names is closed: it shows as orphaned and gives nothing on the successor."""
    merged = grant(session=S1, level="command")
    assert state_of(merged, at(1), session_is_closed=True) == "orphaned"
    assert not may_see([merged], "u-a", "R1", S2, at(1))


def test_a_whole_rae_is_seen_with_its_own_topic_and_commanded_without():
    whole = grant(session=None, level="command")
    assert may_see([whole], "u-a", "R1", RAE_SESSION, at(1))
    assert may_command([whole], "u-a", "R1", S2, at(1))
    assert not may_command([whole], "u-a", "R1", RAE_SESSION, at(1))
    assert may_command([grant(session=RAE_SESSION, level="command")], "u-a", "R1", RAE_SESSION, at(1))
