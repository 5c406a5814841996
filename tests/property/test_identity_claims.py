"""Identity over random histories: one session per MAC and per ESN, and nobody takes a live device's name."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.local_registry.identity import Holder, IdentityBook
from dmpd.local_registry.source import Evidence

GRACE_S = 60.0
MACS = [f"00:00:00:00:00:0{number}" for number in range(5)]
ESNS = [None, "E1", "E2", "E3"]


def book(first: int = 1) -> IdentityBook:
    numbers = itertools.count(first)
    return IdentityBook(grace_s=GRACE_S, new_session=lambda: f"s{next(numbers)}")


def sighting(mac: str | None, esn: str | None = None, **more: object) -> Evidence:
    return Evidence(source="test", seen_at_s=0.0, mac=mac, esn=esn, **more)  # type: ignore[arg-type]


steps = st.lists(
    st.tuples(st.sampled_from(MACS), st.sampled_from(ESNS), st.sampled_from([0.0, 1.0, 70.0])), max_size=40
)


@given(steps)
@settings(max_examples=300, deadline=None)
def test_indexes_agree_with_holders_and_live_devices_keep_their_name(
    history: list[tuple[str, str | None, float]],
) -> None:
    identity = book()
    now_s = 0.0
    last_seen: dict[str, float] = {}
    for mac, esn, wait_s in history:
        now_s += wait_s
        before = {holder.session: holder.esn for holder in identity.holders.values()}
        found = identity.resolve(sighting(mac, esn), now_s)
        assert found.session is not None
        for session, held in before.items():
            lost = session not in identity.holders or identity.holders[session].esn != held
            if held is not None and session != found.session and lost:
                assert now_s - last_seen[session] > GRACE_S, "a live device lost its name"
        identity.seen(found.session, now_s)
        last_seen[found.session] = now_s
        holders = identity.holders
        owned = [(mac, holder.session) for holder in holders.values() for mac in holder.macs]
        assert len({mac for mac, _ in owned}) == len(owned)
        assert dict(owned) == identity._by_mac
        esns = [holder.esn for holder in holders.values() if holder.esn is not None]
        assert len(set(esns)) == len(esns)
        assert {holder.esn: holder.session for holder in holders.values() if holder.esn} == identity._by_esn


def test_new_esn_on_known_mac_is_a_change() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    second = identity.resolve(sighting(MACS[0], "E2"), 1.0)
    assert (first.verdict, second.verdict, second.session, second.esn) == ("new", "known", first.session, "E2")


def test_vanished_device_returns_under_another_mac() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    found = identity.resolve(sighting(MACS[1], "E1"), GRACE_S + 1)
    assert (found.verdict, found.session) == ("moved", first.session)


def test_a_device_whose_cable_was_pulled_returns_at_once_under_another_mac() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    identity.seen(first.session or "", 0.0, mac=MACS[0])
    identity.left(first.session or "", mac=MACS[0])
    found = identity.resolve(sighting(MACS[1], "E1"), 1.0)
    assert (found.verdict, found.session, found.conflict) == ("moved", first.session, None)


def test_a_cable_pulled_soon_after_a_restart_counts_as_well() -> None:
    identity = book(first=100)
    identity.restore(Holder(session="s1", esn="E1", macs=[MACS[0]]), 0.0)
    identity.left("s1", mac=MACS[0])
    assert identity.resolve(sighting(MACS[1], "E1"), 1.0).session == "s1"


def test_a_pulled_cable_takes_no_name_from_who_was_seen_since_or_elsewhere() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    identity.seen(first.session or "", 0.0, mac=MACS[0])
    identity.left(first.session or "", mac=MACS[2])
    assert identity.resolve(sighting(MACS[1], "E1"), 1.0).conflict is not None
    identity.left(first.session or "", mac=MACS[0])
    identity.seen(first.session or "", 2.0, mac=MACS[0])
    assert identity.resolve(sighting(MACS[3], "E1"), 3.0).conflict is not None


def test_claim_on_a_live_holder_is_a_conflict_told_once() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    claim = identity.resolve(sighting(MACS[1], "E1"), 1.0)
    assert claim.verdict == "new"
    assert claim.esn is None
    assert claim.conflict is not None
    assert claim.conflict.holder == first.session
    again = identity.resolve(sighting(MACS[1], "E1"), 2.0)
    assert again.conflict is None
    assert identity.holders[first.session or ""].esn == "E1"


def test_claim_on_a_pinned_holder_moves_nothing_however_long_it_is_away() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    identity.holders[first.session or ""].pinned = True
    claim = identity.resolve(sighting(MACS[1], "E1"), 1e6)
    assert claim.conflict is not None
    assert claim.session != first.session


def test_late_esn_merges_the_newcomer_into_the_vanished_device() -> None:
    identity = book()
    old = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    new = identity.resolve(sighting(MACS[1]), GRACE_S + 1)
    assert new.verdict == "new"
    found = identity.resolve(sighting(MACS[1], "E1"), GRACE_S + 2)
    assert (found.session, found.merged) == (old.session, new.session)
    assert identity.resolve(sighting(MACS[1]), GRACE_S + 3).session == old.session


def test_swap_of_a_vanished_devices_esn_to_an_established_one() -> None:
    identity = book()
    one = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    two = identity.resolve(sighting(MACS[1], "E2"), GRACE_S + 1)
    found = identity.resolve(sighting(MACS[1], "E1"), GRACE_S + 2)
    assert (found.session, found.disowned, found.merged) == (two.session, one.session, None)


def test_a_quiet_device_that_is_there_keeps_its_name_past_the_grace() -> None:
    present = {"s1"}
    numbers = itertools.count(1)
    identity = IdentityBook(
        grace_s=GRACE_S, new_session=lambda: f"s{next(numbers)}", is_present=lambda session: session in present
    )
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    assert identity.resolve(sighting(MACS[1], "E1"), 10 * GRACE_S).conflict is not None
    present.clear()
    assert identity.resolve(sighting(MACS[2], "E1"), 10 * GRACE_S).session == first.session


def test_restart_gives_nobody_a_right_to_a_name() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], "E1"), 0.0)
    reborn = book(first=100)
    reborn.restore(identity.holders[first.session or ""], 0.0)
    assert reborn.resolve(sighting(MACS[1], "E1"), 1.0).conflict is not None


def test_sign_of_absence_onboards_nobody() -> None:
    identity = book()
    assert identity.resolve(sighting(MACS[0], reach="down"), 0.0).session is None
    assert identity.resolve(sighting(MACS[0], gone=True), 0.0).session is None
    assert identity.resolve(sighting(None, ip="10.0.0.9"), 0.0).session is None


def test_address_leads_to_the_device_last_seen_there() -> None:
    identity = book()
    first = identity.resolve(sighting(MACS[0], ip="10.0.0.1"), 0.0)
    assert identity.resolve(sighting(None, "E1", ip="10.0.0.1"), 1.0).session == first.session
    assert identity.holders[first.session or ""].esn == "E1"
