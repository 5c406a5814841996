"""Rules in the words of Mosquitto's plugin: read back as they were written, and anything else is none of ours."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.access.broker import PutBase, PutRule
from dmpd.access.dynsec_rules import acls, command, is_base, rule_name, rule_of, rules_of
from dmpd.access.memory import covers
from dmpd.access.plan import put_user
from dmpd.model.grants import rules
from dmpd.runtime.mqtt_memory import matches
from tests.support.grants import at, grant, grants

WHOLE, ONE, ITSELF = (
    grant("whole", session=None, level="command"),
    grant("one1", level="command"),
    grant("itself", session="rae", level="command"),
)
RULES = {rule.grant: rule for rule in rules([WHOLE, ONE, ITSELF], at(1))}


def listed(rule):
    """As the plugin lists the role that it was told to make."""
    return copy.deepcopy(command(PutRule(rule, exists=False)))


def client(*names, **more):
    made = command(put_user("u-a", names, RULES, exists=False))
    return {"username": "u-a", "roles": made["roles"], **more}


@given(grants(), st.integers(0, 19))
def test_a_rule_is_read_back_from_its_role(found, minute):
    for rule in rules(found, at(minute)):
        assert rule_of(listed(rule)) == rule


@given(grants(), st.integers(0, 19), st.data())
def test_a_role_that_somebody_changed_is_no_rule_or_another_one(found, minute, data):
    for rule in rules(found, at(minute)):
        role = listed(rule)
        lines = role["acls"]
        place = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["drop", "turn", "wider", "more", "end", "foreign"]))
        if how == "drop":
            del lines[place]
        elif how == "turn":
            lines[place]["allow"] = not lines[place]["allow"]
        elif how == "wider":
            lines[place]["topic"] = "dmp/v1/#"
        elif how == "more":
            lines.append({"acltype": "subscribePattern", "topic": "#", "priority": 9, "allow": True})
        elif how == "end":
            role["textdescription"] = data.draw(st.sampled_from(["", "never", "2026-11-28"]))
        else:
            role["rolename"] = "admins"
        assert rule_of(role) != rule


@given(grants(), st.integers(0, 19))
def test_what_a_rule_allows_lies_within_its_session_and_its_users_own_topics(found, minute):
    for rule in rules(found, at(minute)):
        within = f"dmp/v1/{rule.rae}/{rule.session or '+'}"
        for line in acls(rule):
            assert line.topic in {f"{within}/info", f"{within}/rsp/{rule.user}"} or (
                line.acltype == "publishClientSend" and matches(f"dmp/v1/{rule.rae}/+/cmd/{rule.user}", line.topic)
            )
            assert covers(f"dmp/v1/{rule.rae}/+/#", line.topic)
        assert rule.command or not any(line.acltype == "publishClientSend" for line in acls(rule))


def test_a_rule_for_one_session_denies_nothing():
    assert all(line.allow for line in acls(RULES["one1"]) + acls(RULES["itself"]))
    assert [line.topic for line in acls(RULES["whole"]) if not line.allow] == ["dmp/v1/R1/rae/cmd/u-a"]


def test_a_role_without_a_users_topic_or_the_sessions_is_no_rule():
    role = listed(RULES["one1"])
    for end in ("info", "rsp/u-a"):
        part = role | {"acls": [line for line in role["acls"] if line["topic"].endswith(end)]}
        assert rule_of(part) is None
    assert rule_of({"rolename": "g-abcd", "textdescription": role["textdescription"]}) is None
    assert rule_of({"rolename": "g-abcd"}) is None


@pytest.mark.parametrize("name", ["g-", "g-abc", "g-ABCD", "x-abcd", "user2", "g-abcd/x", "g-" + "a" * 41])
def test_a_foreign_name_is_no_grants(name):
    assert rule_name(name) == f"role:{name}"


def test_a_client_is_read_back():
    assert rules_of(client(), RULES) == frozenset()
    assert rules_of(client("one1", "whole", "itself"), RULES) == {"one1", "whole", "itself"}


def _without_base(made):
    made["roles"] = made["roles"][1:]


def _with_a_strong_base(made):
    made["roles"][0]["priority"] = 9


def _with_a_strong_whole(made):
    made["roles"][-1]["priority"] = 2


def _with_another_role(made):
    made["roles"].append({"rolename": "admins", "priority": 2})


def _with_a_weak_rule(made):
    made["roles"][1]["priority"] = 1


def _in_a_group(made):
    made["groups"] = [{"groupname": "admins"}]


def _disabled(made):
    made["disabled"] = True


@pytest.mark.parametrize(
    "change",
    [
        _without_base,
        _with_a_strong_base,
        _with_a_strong_whole,
        _with_another_role,
        _with_a_weak_rule,
        _in_a_group,
        _disabled,
    ],
)
def test_a_client_that_somebody_changed_is_not_sound(change):
    made = client("one1", "whole")
    change(made)
    assert rules_of(made, RULES) is None


def test_the_base_denies_all_or_it_is_none():
    base = command(PutBase())
    assert is_base(base)
    for place in range(len(base["acls"])):
        weaker = copy.deepcopy(base)
        del weaker["acls"][place]
        assert not is_base(weaker)
        weaker = copy.deepcopy(base)
        weaker["acls"][place]["allow"] = True
        assert not is_base(weaker)
