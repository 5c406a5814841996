"""Whatever bytes are in the lease file: no exception, nothing over a bound, nothing unclean."""

import ipaddress
import re

from hypothesis import given
from hypothesis import strategies as st

from dmpd.local_registry.sources.lease_book import LeaseBook, Reading
from dmpd.local_registry.sources.lease_file import LEASES_MAX, Lease, parse

WORDS = st.sampled_from(
    [
        "0",
        "1795581192",
        "02:00:00:77:00:01",
        "02:00:00:77:00:02",
        "10.77.1.1",
        "10.77.1.2",
        "fd00::1",
        "dut",
        "*",
        "duid",
    ]
) | st.text(max_size=30)
LINES = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
CONTENT = st.binary(max_size=600) | st.lists(LINES, max_size=20).map(
    lambda lines: "\n".join(lines).encode("utf-8", errors="surrogatepass")
)
HONEST = st.builds(
    Lease,
    expiry=st.integers(0, 2**40),
    mac=st.sampled_from([f"02:00:00:77:00:0{n}" for n in range(6)]),
    ip=st.sampled_from([f"10.77.1.{n}" for n in range(6)]),
    hostname=st.none() | st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    client_id=st.none() | st.just("01:02:03"),
)


def line_of(lease: Lease) -> bytes:
    return f"{lease.expiry} {lease.mac} {lease.ip} {lease.hostname or '*'} {lease.client_id or '*'}\n".encode()


@given(CONTENT)
def test_anything_can_be_read_and_comes_out_clean(content):
    found = parse(content)
    assert len(found.leases) <= LEASES_MAX
    for ip, lease in found.leases.items():
        assert lease.ip == ip == str(ipaddress.ip_address(ip))
        assert lease.mac is None or re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", lease.mac)
        assert (lease.mac is None) == (":" in ip)
        assert lease.hostname is None or (lease.hostname.isprintable() and 0 < len(lease.hostname) <= 253)
        assert lease.client_id is None or re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2})*", lease.client_id)
        (lease.hostname or "").encode()


@given(st.lists(HONEST, max_size=6, unique_by=lambda one: one.ip))
def test_what_dnsmasq_writes_is_read_back(leases):
    found = parse(b"".join(map(line_of, leases)))
    assert list(found.leases.values()) == leases
    assert found.bad_lines == 0


@given(st.lists(HONEST, max_size=6, unique_by=lambda one: one.ip), st.data())
def test_a_file_read_in_the_middle_of_writing_never_hides_a_new_line(leases, data):
    new = b"".join(map(line_of, leases))
    old = data.draw(st.lists(HONEST, max_size=6, unique_by=lambda one: one.ip))
    rest = b"".join(map(line_of, old))[len(new) :]
    found = parse(new + rest).leases
    for lease in leases:
        assert found[lease.ip] == lease


@given(st.lists(st.lists(HONEST, max_size=6, unique_by=lambda one: one.ip), min_size=1, max_size=8))
def test_nobody_leaves_who_still_holds_a_lease(history):
    book = LeaseBook()
    for leases in history:
        said = book.update(Reading(file_id=1, leases={one.ip: one for one in leases}), now_s=1.0, wall_s=float(2**39))
        holders = {one.mac for one in leases}
        assert not [one for one in said if (one.gone or one.reach == "down") and one.mac in holders]
        assert {one.ip for one in said if not one.gone and one.reach == "up"} <= {one.ip for one in leases}
    assert {one.ip for one in book.known(now_s=1.0)} == {one.ip for one in history[-1]}
