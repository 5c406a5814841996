"""The changes between any two sets of rules: they lead there, safely at each step, and take away before they give."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.access.broker import DropRule, DropUser, Held, PutBase, PutRule, PutUser
from dmpd.access.memory import MemoryRules
from dmpd.access.plan import changes, difference, is_user, still_allowed, wanted
from dmpd.model.grants import rules
from tests.support.grants import USERS, at, grants

minutes = st.integers(0, 19)


@st.composite
def helds(draw):
    """A broker that was right for other grants, and then stopped in the middle, or was changed by somebody."""
    earlier = wanted(rules(draw(grants()), at(draw(minutes))), draw(st.sets(st.sampled_from(USERS))))
    server = MemoryRules()
    way = changes(earlier, server.held)
    for change in way[: draw(st.integers(0, len(way)))]:
        server.do(change)
    held = server.held
    for name in list(held.rules):
        if draw(st.integers(0, 5)) == 0:
            held.rules[name] = None
    if draw(st.booleans()):
        held.rules["role:admin"] = None
        held.users["admin"] = None
    for user in list(held.users):
        if draw(st.integers(0, 5)) == 0:
            held.users[user] = None
    if draw(st.integers(0, 9)) == 0:
        held.base = not held.users and held.base
    return held


targets = st.builds(
    lambda found, minute, users: wanted(rules(found, at(minute)), users),
    grants(),
    minutes,
    st.sets(st.sampled_from(USERS)),
)


def rights(held, user):
    return {name: held.rules[name] for name in held.users.get(user) or () if held.rules.get(name) is not None}


@given(targets, helds())
def test_the_changes_lead_there_and_no_step_is_refused(target, held):
    """The twin refuses what Mosquitto refuses, and cries at what would crash it."""
    server = MemoryRules()
    server.held = held
    way = changes(target, held.copy())
    for change in way:
        server.do(change)
    assert server.held.rules == dict(target.rules)
    assert {user for user in server.held.users if not is_user(user)} == set()
    assert target.users <= set(server.held.users)
    assert changes(target, server.held) == [], "nothing is left to do"
    assert difference(target, server.held) == 0


@given(targets, helds())
def test_a_difference_is_what_there_is_to_do(target, held):
    assert (difference(target, held) > 0) == bool(changes(target, held))


@given(targets, helds())
def test_what_takes_away_comes_before_what_gives(target, held):
    gave = False
    for change in changes(target, held.copy()):
        before = {user: rights(held, user) for user in held.users}
        held.apply(change)
        after = {user: rights(held, user) for user in held.users}
        gives = any(
            name not in before.get(user, {}) or (rule.command and not before[user][name].command)
            for user, found in after.items()
            for name, rule in found.items()
        )
        gave = gave or gives
        if gave and not isinstance(change, DropRule):
            for user, had in before.items():
                assert set(had) <= set(after.get(user, ())), "given before all was taken away"


@given(targets, helds())
def test_a_user_is_disconnected_twice_at_most_and_never_forgotten(target, held):
    way = changes(target, held)
    puts = [change.user for change in way if isinstance(change, PutUser)]
    assert all(puts.count(user) <= 2 for user in puts)
    assert not any(is_user(change.name) for change in way if isinstance(change, DropUser))
    if way and isinstance(way[0], PutBase):
        assert not held.base


@given(helds(), minutes)
def test_without_the_database_what_ended_goes_and_nothing_is_given(held, minute):
    now = at(minute)
    for change in changes(still_allowed(held, now), held.copy()):
        assert not (isinstance(change, PutRule) and not change.exists)
        before = {user: rights(held, user) for user in held.users}
        held.apply(change)
        for user in held.users:
            assert rights(held, user).items() <= before.get(user, {}).items()
    assert all(rule is not None and now < rule.ends_at for rule in held.rules.values())


def test_one_new_grant_does_not_wait_behind_a_thousand_of_another():
    many = [f"{number:04}" for number in range(50)]
    from tests.support.grants import grant

    target = wanted(rules([grant(name, "u-a") for name in many] + [grant("zzzz", "u-z")], at(1)), ())
    way = changes(target, Held(base=True, rules={}, users={}))
    assert [type(change).__name__ for change in way[:2]] == ["PutRule", "PutUser"]
    assert way[1] == PutUser("u-z", ("zzzz",), exists=False)
    assert len(way) == 51 + 2
