"""Presence: signs of life count at once, their lack only after a grace; flappers are named once."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.local_registry.presence import Presence
from dmpd.local_registry.settings import PresenceSettings
from dmpd.local_registry.source import Evidence

RULES = PresenceSettings()


def presence(state: str = "unknown", random: float = 0.5) -> Presence:
    return Presence(RULES, now_s=0.0, random=lambda: random, state=state)  # type: ignore[arg-type]


def says(**what: object) -> Evidence:
    return Evidence(source="test", seen_at_s=0.0, **what)  # type: ignore[arg-type]


def run_until(one: Presence, start_s: int, end_s: int) -> list[tuple[int, str]]:
    changes, before = [], one.state
    for now_s in range(start_s, end_s):
        one.tick(float(now_s))
        if one.state != before:
            changes.append((now_s, one.state))
            before = one.state
    return changes


def test_online_at_once_offline_after_the_grace() -> None:
    one = presence()
    one.observe(says(reach="up"), 1.0)
    assert one.state == "online"
    one.observe(says(reach="down"), 10.0)
    assert run_until(one, 10, 200) == [(61, "offline")]


def test_who_does_not_answer_after_a_long_silence_is_asked_again_before_it_is_offline() -> None:
    one = presence()
    one.observe(says(reach="up"), 1.0)
    one.observe(says(reach="down"), 100.0)
    assert [now_s for now_s in range(100, 115) if one.probe_due(float(now_s))] == [105, 110]
    assert run_until(one, 100, 200) == [(115, "offline")]


def test_sign_of_life_within_the_grace_clears_the_suspicion() -> None:
    one = presence()
    one.observe(says(reach="up"), 1.0)
    one.observe(says(reach="down"), 10.0)
    one.observe(says(reach="up"), 50.0)
    assert run_until(one, 50, 300) == []
    assert one.state == "online"


def test_gone_skips_the_grace() -> None:
    one = presence()
    one.observe(says(reach="up"), 1.0)
    one.observe(says(gone=True), 2.0)
    assert one.state == "offline"


def test_power_names_the_kind_of_presence() -> None:
    one = presence()
    one.observe(says(reach="up", power="standby"), 1.0)
    assert one.state == "standby"
    one.observe(says(power="on"), 2.0)
    assert one.state == "online"
    one.observe(says(power="asleep"), 3.0)
    one.observe(says(reach="down"), 4.0)
    assert one.state == "asleep"


def test_who_sleeps_is_there_and_who_does_not_answer_may_not_be() -> None:
    one = presence()
    one.observe(says(reach="up", power="on"), 1.0)
    assert one.is_present
    one.observe(says(reach="down"), 2.0)
    assert not one.is_present
    one.observe(says(reach="up", power="asleep"), 3.0)
    one.observe(says(reach="down"), 4.0)
    assert one.is_present
    one.observe(says(reach="up", power="on"), 5.0)
    one.observe(says(gone=True), 6.0)
    assert not one.is_present


def test_restart_is_unknown_only_if_not_seen_within_the_restart_grace() -> None:
    seen, unseen = presence("online"), presence("online")
    seen.observe(says(reach="up"), 5.0)
    assert run_until(seen, 0, 100) == []
    assert run_until(unseen, 0, 400) == [(10, "unknown"), (180, "offline")]


def test_who_does_not_answer_after_a_restart_is_unknown_before_it_is_offline() -> None:
    one = presence("online")
    one.observe(says(reach="down"), 3.0)
    assert run_until(one, 0, 400) == [(10, "unknown"), (60, "offline")]


def test_silence_of_a_present_device_is_no_proof() -> None:
    one = presence()
    one.observe(says(reach="up"), 1.0)
    assert run_until(one, 1, 10_000) == []


def test_lan_down_freezes_the_grace() -> None:
    one = presence()
    one.observe(says(reach="up"), 1.0)
    one.observe(says(reach="down"), 10.0)
    one.thaw(1000.0)
    assert run_until(one, 1010, 1200) == [(1061, "offline")]


def test_flapper_is_named_once_and_forgiven_later() -> None:
    one = presence()
    states = []
    for now_s in range(0, 60, 2):
        one.observe(says(reach="up") if now_s % 4 == 0 else says(gone=True), float(now_s))
        states.append(one.state)
    settled = states.index("flapping")
    assert set(states[settled:]) == {"flapping"}
    assert settled < 6
    changes = run_until(one, 60, 4000)
    assert [state for _, state in changes] == ["offline"]


def test_suspect_is_probed_three_times_then_patience_doubles() -> None:
    one = presence()
    one.observe(says(reach="up"), 0.0)
    one.observe(says(reach="down"), 1.0)
    probes = [now_s for now_s in range(1, 60) if one.probe_due(float(now_s))]
    assert probes == [6, 11, 21]
    one.tick(61.0)
    assert one.state == "offline"
    later = [now_s for now_s in range(61, 20_000) if one.probe_due(float(now_s))]
    gaps = [second - first for first, second in itertools.pairwise(later)]
    assert max(gaps) <= RULES.probe_interval_max_s
    assert gaps[-1] >= RULES.probe_interval_max_s * 0.7
    assert gaps[0] < 60


def test_silent_death_is_offline_within_ninety_seconds() -> None:
    """The kernel believes an answer for up to 45 s, then says FAILED 8 s after the next datagram."""
    for random in (0.0, 0.5, 0.999):
        for believed_s in (15, 30, 45):
            one = presence(random=random)
            one.observe(says(reach="up"), 0.0)
            failed_s = None
            for now_s in range(200):
                asked = one.probe_due(float(now_s))
                if asked and now_s >= believed_s and failed_s is None:
                    failed_s = now_s + 8
                if now_s == failed_s:
                    one.observe(says(reach="down"), float(now_s))
                one.tick(float(now_s))
                if one.state == "offline":
                    break
            assert 60 <= now_s <= 90


evidence = st.sampled_from(
    [
        says(reach="up"),
        says(reach="down"),
        says(gone=True),
        says(reach="up", power="standby"),
        says(power="asleep"),
        says(),
    ]
)


@given(st.lists(st.tuples(evidence, st.floats(0.1, 100)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_sign_of_life_is_never_followed_by_offline_without_a_reason(history: list[tuple[Evidence, float]]) -> None:
    one, now_s = presence(), 0.0
    doubted = False
    for what, wait_s in history:
        now_s += wait_s
        one.tick(now_s)
        before = one.state
        one.observe(what, now_s)
        doubted = what.gone or what.reach == "down" or (doubted and what.reach != "up")
        if what.reach == "up":
            assert one.state in ("online", "standby", "asleep", "flapping")
        if before in ("online", "standby") and one.state == "offline":
            assert what.gone
    now_s += 10_000
    one.tick(now_s)
    if not doubted and any(what.reach == "up" for what, _ in history):
        assert one.state != "offline"
