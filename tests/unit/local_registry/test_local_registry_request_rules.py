"""Who may ask what of a RAE, and how long a request lives when the loop stood still."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.local_registry.answers import RequestAges
from dmpd.local_registry.request_rules import STALL_MIN_S, STALL_SHADOW_S, Lateness, RefusedError, admit
from dmpd.local_registry.settings import RequestSettings
from dmpd.model.messages import Request
from dmpd.model.requests import AppArgs

SESSION = "0f1e2345-6789-4abc-8def-0123456789ab"


def asked(verb, session=SESSION, **args):
    said = {name: Raw(value) for name, value in args.items()}
    return Request(v=1, rae="r1", session=session, at=datetime(2026, 1, 1, tzinfo=UTC), id="i", verb=verb, args=said)


@pytest.mark.parametrize(
    ("requester", "allowed"),
    [("svc-registry", True), ("op-eve", True), ("op-", False), ("u-ada", False), ("svc-bridge", False)],
)
def test_only_whom_the_configuration_lists_may_ask_the_rae_itself(requester, allowed):
    rules = RequestSettings(rae_verbs_from=["svc-registry", "op-eve"])
    if allowed:
        admit(asked("ping", "rae"), requester, rules, blind_s=0)
    else:
        with pytest.raises(RefusedError, match=r"rae_verbs_from"):
            admit(asked("ping", "rae"), requester, rules, blind_s=0)
    admit(asked("app.state", app=b'"A"'), requester, rules, blind_s=0)


def test_a_star_at_the_end_stands_for_any_rest():
    rules = RequestSettings(rae_verbs_from=["op-*"])
    admit(asked("ping", "rae"), "op-eve", rules, blind_s=0)
    with pytest.raises(RefusedError):
        admit(asked("ping", "rae"), "u-op-eve", rules, blind_s=0)


def test_verbs_can_be_switched_off():
    rules = RequestSettings(session_verbs=["app.state"], rae_verbs=[])
    assert admit(asked("app.state", app=b'"A"'), "u-ada", rules, blind_s=0) == AppArgs(app="A")
    for request in (asked("app.stop", app=b'"A"'), asked("ping", "rae")):
        with pytest.raises(RefusedError, match="switched off"):
            admit(request, "op-eve", rules, blind_s=0)


def test_what_cannot_be_repeated_is_refused_while_the_past_is_unknown():
    rules = RequestSettings()
    admit(asked("probe"), "u-ada", rules, blind_s=1800)
    with pytest.raises(RefusedError, match="another 31 min"):
        admit(asked("app.launch", app=b'"A"'), "u-ada", rules, blind_s=1800)


def test_a_stall_is_taken_off_the_lifetime_of_what_is_read_right_after_it():
    late = Lateness(0.0)
    for second in range(1, 10):
        late.alive(float(second))
        assert late.deadline_s(60, second + 0.5) == second + 60.5
    assert late.deadline_s(60, 109.0) == 109 + 60 - 100, "before the timer"
    late.alive(109.0)
    assert late.deadline_s(60, 110.0) == 110 + 60 - 100, "in its shadow"
    assert late.deadline_s(60, 109 + STALL_SHADOW_S) == 169 + STALL_SHADOW_S


@given(st.floats(0, 1e6), st.floats(STALL_MIN_S + 0.1, 1e5), st.floats(0, STALL_SHADOW_S - 0.1), st.integers(0, 10**6))
def test_nothing_read_after_a_stall_outlives_what_was_sent_before_it(began_s, stall_s, since_s, expiry_s):
    late = Lateness(began_s)
    late.alive(began_s + stall_s)
    now_s = began_s + stall_s + since_s
    assert late.deadline_s(expiry_s, now_s) <= began_s + min(expiry_s, 3600) + since_s + 1e-3


def test_a_jump_of_the_wall_clock_ages_no_request():
    ages = RequestAges()
    day_ms = 86_400_000
    first = ages.due(0.0, 1_000_000_000_000)
    assert first == (1_000_000_000_000 - day_ms, 0)
    ages.done(0.0, 1_000_000_000_000)
    assert ages.due(599.0, 1_000_000_599_000) is None
    assert ages.due(700.0, 1_000_000_700_500) == (1_000_000_700_500 - day_ms, 0), "half a second is drift"
    assert ages.due(700.0, 1_790_000_700_000) == (1_790_000_700_000 - day_ms, 790_000_000_000)
    assert ages.due(700.0, 1_000_000_000_000) == (1_000_000_000_000 - day_ms, -700_000)
