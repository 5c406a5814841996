"""Records: hostile evidence within the limits, and the smallest change between two records."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from msgspec.structs import replace

from dmpd.local_registry.records import cleaned, difference, learned, merged, new_record
from dmpd.local_registry.source import Evidence
from dmpd.model import limits
from dmpd.model.codec import encode
from dmpd.model.messages import Checkpoint
from dmpd.model.record import DeviceRecord

AT = datetime(2026, 1, 2, tzinfo=UTC)
MAC = "3c:12:aa:00:00:01"


def says(**what: object) -> Evidence:
    return Evidence(source="test", seen_at_s=0.0, **what)  # type: ignore[arg-type]


def learn(record: DeviceRecord, **what: object) -> DeviceRecord:
    sighting = cleaned(says(**what))
    assert sighting is not None
    return learned(record, sighting, esn=sighting.esn, moved=False)


@pytest.mark.parametrize(
    "mac", ["", "nonsense", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "3c:12"]
)
def test_what_is_no_device_is_dropped(mac: str) -> None:
    assert cleaned(says(mac=mac, ip="10.0.0.1")) is None


def test_text_is_stripped_of_controls_and_cut() -> None:
    assert cleaned(says(mac=MAC, esn="x" + "\U0001f600" * 600)).esn == "x" + "\U0001f600" * 511
    sighting = cleaned(says(mac=MAC.upper(), name="a\0b\ud800c\n" + "x" * 5000, ip="not an address"))
    assert sighting is not None
    assert sighting.mac == MAC
    assert sighting.name is not None
    assert sighting.name.startswith("abc" + "x")
    assert len(sighting.name) <= limits.TEXT_LENGTH_MAX
    assert sighting.ip is None


def test_attributes_that_are_no_json_or_too_large_are_dropped() -> None:
    attributes = {"good": b"1", "bad": b"{", "": b"1", "k" * 200: b"1", "big": b'"' + b"x" * 20_000 + b'"'}
    sighting = cleaned(says(mac=MAC, attributes=attributes))
    assert sighting is not None
    assert set(sighting.attributes) == {"good"}


def test_evidence_adds_and_never_takes_away() -> None:
    record = learn(new_record(AT), mac=MAC, ip="10.0.0.1", hostname="tv", attributes={"a": b"1"})
    record = learn(record, mac=MAC, ip="fe80::1", attributes={"b": b"2"})
    (interface,) = record.interfaces
    assert (interface.ip4, interface.ip6, interface.hostname, interface.mac_random) == (
        "10.0.0.1",
        ("fe80::1",),
        "tv",
        False,
    )
    assert set(record.attributes) == {"a", "b"}


def test_same_evidence_again_changes_nothing() -> None:
    what = {"mac": MAC, "ip": "10.0.0.1", "esn": "E", "attributes": {"a": b"1"}}
    record = learn(new_record(AT), **what)
    assert not difference(record, learn(record, **what))


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 400)), max_size=200))
def test_interfaces_and_addresses_stay_sendable(history: list[tuple[int, int]]) -> None:
    record = new_record(AT)
    for mac, ip in history:
        record = learn(record, mac=f"3c:12:aa:00:00:{mac:02x}", ip=f"fd00::{ip + 1:x}")
    message = Checkpoint(
        v=1, rae="R1", session="00000000-0000-0000-0000-000000000001", at=AT, epoch=1, rev=1, record=record
    )
    encode(message)


def test_difference_names_what_changed_and_what_is_gone() -> None:
    old = learn(new_record(AT), mac=MAC, attributes={"a": b"1", "b": b"2"}, name="x")
    new = replace(old, name="y", esn="E", attributes={"a": Raw(b"1"), "c": Raw(b"3")})
    found = difference(old, new)
    assert found.patch.name == "y"
    assert found.patch.esn == "E"
    assert found.patch.model is UNSET
    assert found.patch.interfaces is UNSET
    assert found.patch.attributes == {"c": Raw(b"3")}
    assert found.unset == ("b",)
    assert not difference(old, old)


def test_device_under_another_mac_loses_its_old_interfaces() -> None:
    record = learn(new_record(AT), mac=MAC, ip="10.0.0.1")
    sighting = cleaned(says(mac="3c:12:aa:00:00:02", ip="10.0.0.2"))
    assert sighting is not None
    assert [one.mac for one in learned(record, sighting, esn=None, moved=True).interfaces] == ["3c:12:aa:00:00:02"]


def test_merged_record_keeps_the_older_names_and_the_younger_facts() -> None:
    old = learn(new_record(AT), mac=MAC, esn="E", name="old", attributes={"a": b"1"})
    new = learn(new_record(AT), mac="3c:12:aa:00:00:02", attributes={"a": b"2"})
    record = merged(old, new)
    assert (record.esn, record.name, record.attributes["a"]) == ("E", "old", Raw(b"2"))
    assert [one.mac for one in record.interfaces] == ["3c:12:aa:00:00:02"]


def test_an_interface_has_the_vendor_of_its_mac_and_keeps_it() -> None:
    sighting = cleaned(says(mac=MAC, ip="10.0.0.1"))
    assert sighting is not None
    record = learned(new_record(AT), sighting, esn=None, moved=False, vendor_of={MAC: "Aster\n"}.get)
    assert record.interfaces[0].oui_vendor == "Aster"
    again = learned(record, sighting, esn=None, moved=False, vendor_of=lambda mac: None)
    assert again.interfaces[0].oui_vendor == "Aster"
