"""The lease file and dnsmasq's script together: the file says who came and left, the script adds what it lacks."""

import itertools
from datetime import UTC, datetime

import pytest

from dmpd.local_registry.registry import Registry
from dmpd.local_registry.settings import PresenceSettings
from dmpd.local_registry.sources.lease_book import LeaseBook, Reading
from dmpd.local_registry.sources.lease_file import Lease
from dmpd.local_registry.sources.lease_script import LeaseEvent
from dmpd.local_registry.waiting import WaitingRoom

MAC, IP = "02:00:00:77:00:01", "10.77.1.1"
LEASE = Lease(expiry=2_000, mac=MAC, ip=IP, hostname="dut-1", client_id=f"01:{MAC}")
ADD = LeaseEvent(action="add", mac=MAC, ip=IP, hostname="dut-1", vendor_class="acme")


def reading(*leases: Lease) -> Reading:
    return Reading(file_id=1, leases={one.ip: one for one in leases})


@pytest.fixture
def book() -> LeaseBook:
    book = LeaseBook()
    book.update(reading(), now_s=1.0, wall_s=1_000.0)
    return book


def test_the_file_says_that_it_arrived_and_the_script_what_it_is(book):
    (arrival,) = book.update(reading(LEASE), now_s=1.0, wall_s=1_000.0)
    assert (arrival.arrived, arrival.reach, arrival.vendor_class) == (True, "up", None)
    (added,) = book.hear(ADD, now_s=2.0)
    assert (added.mac, added.ip, added.hostname, added.client_id) == (MAC, IP, "dut-1", f"01:{MAC}")
    assert (added.vendor_class, added.seen_at_s) == ("acme", 2.0)
    assert (added.arrived, added.reach, added.gone) == (False, None, False)


def test_a_name_that_the_server_gave_to_another_is_what_the_device_calls_itself(book):
    book.update(reading(Lease(expiry=2_000, mac=MAC, ip=IP)), now_s=1.0, wall_s=1_000.0)
    (added,) = book.hear(LeaseEvent(action="add", mac=MAC, ip=IP, hostname="dut-1"), now_s=1.0)
    assert added.hostname == "dut-1"


@pytest.mark.parametrize(
    "event",
    [
        LeaseEvent(action="old", mac=MAC, ip=IP, hostname="dut-1"),
        LeaseEvent(action="del", mac=MAC, ip=IP, hostname="dut-1", vendor_class="acme"),
        LeaseEvent(action="add", mac=MAC, ip="10.77.1.9", vendor_class="acme"),
        LeaseEvent(action="add", mac="02:00:00:77:00:09", ip=IP, vendor_class="acme"),
    ],
    ids=["nothing new", "the end", "no such lease", "the address is another's now"],
)
def test_a_call_that_adds_nothing_to_a_lease_of_the_file_says_nothing(book, event):
    book.update(reading(LEASE), now_s=1.0, wall_s=1_000.0)
    assert book.hear(event, now_s=1.0) == []


def test_a_call_before_any_reading_says_nothing():
    assert LeaseBook().hear(ADD, now_s=1.0) == []


def test_a_lease_given_back_is_told_once_by_the_rule_of_the_file(book):
    book.update(reading(LEASE, Lease(expiry=9_000, mac="02:00:00:77:00:02", ip="10.77.1.2")), now_s=1.0, wall_s=1.0)
    rest = reading(Lease(expiry=9_000, mac="02:00:00:77:00:02", ip="10.77.1.2"))
    found = book.update(rest, now_s=1.0, wall_s=1_000.0)
    found += book.hear(LeaseEvent(action="del", mac=MAC, ip=IP, vendor_class="acme"), now_s=1.0)
    assert [(one.mac, one.gone) for one in found] == [(MAC, True)]
    assert book.hear(ADD, now_s=1.0) == [], "a script that ran late brings nobody back"


@pytest.mark.parametrize("wait_s", [0.0, 0.5])
def test_a_device_told_by_both_is_onboarded_once_with_its_vendor_class(book, wait_s):
    numbers = itertools.count()
    registry = Registry("R1", rules=PresenceSettings(), new_session=lambda: f"s{next(numbers)}", random=lambda: 0.5)
    room = WaitingRoom(wait_s)
    ready = []
    for evidence in [*book.update(reading(LEASE), now_s=1.0, wall_s=1_000.0), *book.hear(ADD, now_s=1.0)]:
        ready += room.admit(evidence, 1.0, known=registry.identity.knows(MAC))
    ready += room.due(2.0)
    for evidence in ready:
        registry.observe(evidence, now_s=2.0, at=datetime(2026, 1, 1, tzinfo=UTC))
    assert [one.arrived for one in ready] == [True, False]
    (device,) = registry.devices.values()
    (interface,) = device.record.interfaces
    assert (interface.vendor_class, interface.hostname, interface.ip4) == ("acme", "dut-1", IP)
