import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.canary.plan import Plan, flash_offsets_s, number_of, probing, rae_of, ramp_offsets_s, shares
from dmpd.model.principals import PrincipalKind, principal_kind


def plan(clients: int, changes: int = 8) -> Plan:
    return Plan(
        run="00000000-0000-0000-0000-000000000001",
        seed=1,
        epoch=1,
        first=1,
        last=clients,
        changes=changes,
        started_ms=1,
    )


@settings(deadline=None)
@given(st.sampled_from(["step", "linear", "herd"]), st.floats(0.1, 60), st.integers(1, 500))
def test_a_ramp_brings_everybody_in_time_and_in_order(ramp, ramp_s, clients):
    offsets = ramp_offsets_s(ramp, ramp_s, clients)
    assert len(offsets) == clients
    assert offsets == sorted(offsets)
    assert offsets[0] == 0
    assert offsets[-1] < ramp_s


def test_ramps_differ_as_their_names_say():
    assert set(ramp_offsets_s("herd", 8, 100)) == {0.0}
    assert sorted(set(ramp_offsets_s("step", 8, 100))) == [0.0, 2.0, 4.0, 6.0]
    assert len(set(ramp_offsets_s("linear", 8, 100))) == 100


@settings(deadline=None)
@given(st.sampled_from(["steady", "waves", "burst"]), st.integers(1, 40), st.integers(1, 10))
def test_a_flash_has_each_change_of_each_client_once_and_in_order(profile, clients, changes):
    found = list(flash_offsets_s(profile, 10.0, plan(clients, changes), clients))
    assert len(found) == len({(number, slot) for _, number, slot in found}) == clients * changes
    for number in range(1, clients + 1):
        mine = [(offset, slot) for offset, who, slot in found if who == number]
        assert mine == sorted(mine)
        assert [slot for _, slot in mine] == list(range(2, changes + 2))
    assert all(0 <= offset < 10.0 for offset, _, _ in found)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 16))
def test_shares_are_all_the_clients_in_order_and_nearly_equal(first, more, processes):
    found = shares(first, first + more, processes)
    assert [number for low, high in found for number in range(low, high + 1)] == list(range(first, first + more + 1))
    sizes = [high - low + 1 for low, high in found]
    assert len(sizes) == min(processes, more + 1)
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 400))
def test_so_many_probe_as_asked_for_evenly_among_all(clients, probes):
    found = probing(plan(clients), probes)
    assert len(found) == len(set(found)) == min(probes, clients)
    assert set(found) <= set(range(1, clients + 1))
    gaps = [later - one for one, later in itertools.pairwise(found)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize("number", [1, 42, 9_999, 10_000, 900_000])
def test_names_are_those_of_canaries_and_lead_back(number):
    assert principal_kind(rae_of(number)) is PrincipalKind.CANARY_RAE
    assert number_of(rae_of(number)) == number


@pytest.mark.parametrize("name", ["sim-0001", "canary-", "canary-x1", "canary-²", "Canary-0001"])
def test_other_names_have_no_number(name):
    assert number_of(name) == 0
