"""Datagrams of dnsmasq's script, honest and hostile."""

import pytest

from dmpd.local_registry.sources import lease_hook
from dmpd.local_registry.sources.lease_script import DATAGRAM_BYTES_MAX, LeaseEvent, parse

MAC, IP = "02:00:00:77:00:01", "10.77.1.84"


def said(*words: str, **variables: str):
    environment = {f"DNSMASQ_{name}".encode(): value.encode() for name, value in variables.items()}
    return parse(lease_hook.datagram(list(words), environment))


@pytest.mark.parametrize("action", ["add", "old", "del"])
def test_each_action_is_an_event(action):
    assert said(action, MAC, IP) == LeaseEvent(action=action, mac=MAC, ip=IP)
    named = said(action, MAC, IP, "dut-1", VENDOR_CLASS="acme-cam1")
    assert named == LeaseEvent(action=action, mac=MAC, ip=IP, hostname="dut-1", vendor_class="acme-cam1")


def test_ethernet_may_say_its_type_and_others_are_no_device():
    assert said("add", f"01-{MAC}", IP).mac == MAC
    assert said("add", f"06-{MAC}", IP) is None


def test_a_name_that_the_server_did_not_grant_is_still_what_the_device_calls_itself():
    assert said("add", MAC, IP, SUPPLIED_HOSTNAME="dut-1").hostname == "dut-1"
    assert said("add", MAC, IP, "granted", SUPPLIED_HOSTNAME="dut-1").hostname == "granted"


def test_dhcpv6_has_a_duid_and_no_mac_as_in_the_file():
    event = said("add", "00:03:00:01:02:00:00:77:00:01", "FD00::217")
    assert (event.mac, event.ip) == (None, "fd00::217")


def test_a_vendor_class_is_cleaned_and_cut():
    event = said("add", MAC, IP, VENDOR_CLASS="acme\x1b[31m\u202e cam=1 " + "x" * 500)
    assert event.vendor_class == ("acme[31m cam=1 " + "x" * 500)[:255]
    assert said("add", MAC, IP, VENDOR_CLASS="\x07").vendor_class is None


HEAD = [b"dmpd-lease-1", b"add", MAC.encode(), IP.encode(), b"dut"]


def swapped(place: int, word: bytes) -> bytes:
    return b"\0".join([*HEAD[:place], word, *HEAD[place + 1 :]])


CORPUS = [
    b"",
    b"\0" * 1000,
    b"\xff" * 1000,
    b"\0".join(HEAD[:4]),
    b"\0".join([*HEAD, *[b"A=1"] * 11]),
    swapped(0, b"dmpd-lease-2"),
    swapped(0, b"dmpd-lease-1\n"),
    swapped(1, b"ADD"),
    swapped(1, b"arp-add"),
    swapped(2, b"*"),
    swapped(2, b"ff:ff:ff:ff:ff:ff"),
    swapped(2, b"01-01-02:00:00:77:00:01"),
    swapped(2, b"02:00:00:77:00:01\n"),
    swapped(3, b"10.77.1.999"),
    swapped(3, b"224.0.0.1"),
    swapped(3, b"127.0.0.1"),
    swapped(3, b"fe80::1%eth0"),
    b"\0".join([*HEAD, b"A=" + b"x" * DATAGRAM_BYTES_MAX]),
]


@pytest.mark.parametrize("datagram", CORPUS, ids=range(len(CORPUS)))
def test_what_the_hook_would_not_say_is_nothing(datagram):
    assert parse(b"\0".join(HEAD)) is not None
    assert parse(datagram) is None


@pytest.mark.parametrize(
    "variable", [b"", b"=", b"DNSMASQ_VENDOR_CLASS", b"VENDOR_CLAS=x", b"DNSMASQ_VENDOR_CLASS=\x07"]
)
def test_a_variable_that_makes_no_sense_costs_itself(variable):
    assert parse(b"\0".join([*HEAD, variable])) == LeaseEvent(action="add", mac=MAC, ip=IP, hostname="dut")
