"""dnsmasq's script: any datagram is harmless, and with it the file tells the same arrivals and farewells as without."""

import ipaddress
import re

from hypothesis import given
from hypothesis import strategies as st

from dmpd.local_registry.sources import lease_hook
from dmpd.local_registry.sources.lease_book import LeaseBook, Reading
from dmpd.local_registry.sources.lease_file import Lease
from dmpd.local_registry.sources.lease_script import LeaseEvent, parse

WORDS = st.sampled_from(
    [b"dmpd-lease-1", b"add", b"old", b"del", b"02:00:00:77:00:01", b"10.77.1.1", b"fd00::1", b"dut", b""]
) | st.binary(max_size=30)
NAMES = st.sampled_from(lease_hook.VARIABLES)
VARIABLES = st.builds(lambda name, value: name + b"=" + value, NAMES, WORDS)
HEAD = [b"dmpd-lease-1", b"add", b"02:00:00:77:00:01", b"10.77.1.1"]
DATAGRAMS = (
    st.binary(max_size=300)
    | st.lists(WORDS, max_size=12).map(b"\0".join)
    | st.lists(VARIABLES, max_size=6).map(lambda said: b"\0".join([*HEAD, b"dut", *said]))
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(DATAGRAMS)
def test_anything_can_be_sent_and_comes_out_clean(datagram):
    event = parse(datagram)
    if event is None:
        return
    assert event.ip == str(ipaddress.ip_address(event.ip))
    assert (event.mac is None) == (":" in event.ip)
    assert event.mac is None or re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", event.mac)
    for text, length_max in ((event.hostname, 253), (event.vendor_class, 255)):
        assert text is None or (text.isprintable() and 0 < len(text) <= length_max)
        (text or "").encode()


@given(TEXT, TEXT)
def test_what_the_hook_sends_is_read_back(hostname, vendor_class):
    said = {b"DNSMASQ_VENDOR_CLASS": vendor_class.encode()}
    event = parse(lease_hook.datagram(["add", "02:00:00:77:00:01", "10.77.1.1", hostname], said))
    assert (event.action, event.mac, event.ip) == ("add", "02:00:00:77:00:01", "10.77.1.1")
    assert event.hostname == ("".join(filter(str.isprintable, hostname)).strip() or None)
    assert event.vendor_class == ("".join(filter(str.isprintable, vendor_class)).strip() or None)


IPS, MACS = [f"10.77.1.{n}" for n in range(3)], [f"02:00:00:77:00:0{n}" for n in range(3)]
LEASES = st.builds(Lease, expiry=st.integers(0, 3), mac=st.sampled_from(MACS), ip=st.sampled_from(IPS))
READINGS = st.lists(LEASES, max_size=3, unique_by=lambda one: one.ip).map(
    lambda leases: Reading(file_id=1, leases={one.ip: one for one in leases})
)
EVENTS = st.builds(
    LeaseEvent,
    action=st.sampled_from(["add", "old", "del"]),
    mac=st.sampled_from(MACS),
    ip=st.sampled_from(IPS),
    vendor_class=st.none() | st.just("acme"),
)


@given(st.lists(READINGS | EVENTS, max_size=12))
def test_whatever_the_script_says_and_when_who_came_and_who_left_is_told_by_the_file_alone(story):
    """Calls may be lost, come late, twice, or of nobody."""
    book, file_only, last = LeaseBook(), LeaseBook(), {}
    for said in story:
        if isinstance(said, Reading):
            last = said.leases
            told = book.update(said, now_s=1.0, wall_s=2.0)
            assert told == file_only.update(said, now_s=1.0, wall_s=2.0)
            continue
        for one in book.hear(said, now_s=1.0):
            assert (one.arrived, one.gone, one.reach) == (False, False, None)
            assert last[one.ip].mac == one.mac, "of a lease that stands"
            assert one.vendor_class == "acme"
    assert book.known(now_s=1.0) == file_only.known(now_s=1.0)
