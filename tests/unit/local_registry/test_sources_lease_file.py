"""dnsmasq's lease file as text, honest and hostile."""

import pytest

from dmpd.local_registry.sources.clean import clean_ip, clean_mac, clean_text
from dmpd.local_registry.sources.lease_file import LEASES_MAX, Lease, parse

GOOD = b"1795581192 02:00:00:77:00:01 10.77.1.217 dut-1 01:02:00:00:77:00:01\n"
LEASE = Lease(
    expiry=1795581192,
    mac="02:00:00:77:00:01",
    ip="10.77.1.217",
    hostname="dut-1",
    client_id="01:02:00:00:77:00:01",
)


def test_a_line_is_a_lease():
    found = parse(GOOD)
    assert found.leases == {LEASE.ip: LEASE}
    assert found.bad_lines == 0


def test_a_star_is_none():
    found = parse(b"0 02:00:00:77:00:01 10.77.1.217 * *\n").leases["10.77.1.217"]
    assert (found.expiry, found.hostname, found.client_id) == (0, None, None)


def test_behind_the_duid_line_are_leases_without_a_mac():
    content = GOOD + b"duid 00:01:00:01:2c:aa\n1795581192 7798784 fd00::217 dut-1 00:03:00:01:02:00:00:77:00:01\n"
    found = parse(content).leases["fd00::217"]
    assert (found.mac, found.hostname, found.client_id) == (None, "dut-1", "00:03:00:01:02:00:00:77:00:01")
    assert parse(content).bad_lines == 0


def test_while_dnsmasq_writes_over_the_old_content_the_new_lines_count():
    new = GOOD.replace(b"1795581192", b"1795581999")
    rest = b"0:77:00:02 10.77.1.218 dut-2 *\n" + GOOD
    found = parse(new + rest)
    assert found.leases["10.77.1.217"].expiry == 1795581999
    assert found.bad_lines == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x 02:00:00:77:00:01 10.77.1.217 dut-1 *",
        b"-5 02:00:00:77:00:01 10.77.1.217 dut-1 *",
        b"99999999999999999999999 02:00:00:77:00:01 10.77.1.217 dut-1 *",
        "١ 02:00:00:77:00:01 10.77.1.217 dut-1 *".encode(),  # noqa: RUF001 - a digit, but not one of ours
        b"1795581192 02:00:00:77:00 10.77.1.217 dut-1 *",
        b"1795581192 06-02:00:00:77:00:01 10.77.1.217 dut-1 *",
        b"1795581192 ff:ff:ff:ff:ff:ff 10.77.1.217 dut-1 *",
        b"1795581192 02:00:00:77:00:01 10.77.1.999 dut-1 *",
        b"1795581192 02:00:00:77:00:01 224.0.0.1 dut-1 *",
        b"1795581192 02:00:00:77:00:01 fd00::1 dut-1 *",
        b"1795581192 02:00:00:77:00:01 10.77.1.217 two words *",
        b"1795581192 02:00:00:77:00:01 10.77.1.217",
        b"1795581192 02:00:00:77:00:01 10.77.1.217 " + b"x" * 5000 + b" *",
    ],
)
def test_a_line_that_makes_no_sense_costs_itself(line):
    found = parse(line + b"\n" + GOOD)
    assert found.leases == {LEASE.ip: LEASE}
    assert found.bad_lines == (1 if line else 0)


def test_a_hostname_loses_what_cannot_be_printed_and_what_is_too_long():
    line = "0 02:00:00:77:00:01 10.77.1.217 a\x00b\x1b[31m\u202ec{} *\n".format("x" * 500).encode()
    hostname = parse(line).leases["10.77.1.217"].hostname
    assert hostname == ("ab[31mc" + "x" * 500)[:253]


def test_a_client_id_that_is_not_hex_is_none():
    assert parse(b"0 02:00:00:77:00:01 10.77.1.217 h zz:01\n").leases["10.77.1.217"].client_id is None


def test_a_flood_of_leases_is_cut():
    lines = b"".join(
        b"0 02:00:00:77:%02x:%02x 10.%d.%d.1 * *\n" % (n >> 8, n & 255, n >> 8, n & 255) for n in range(5000)
    )
    found = parse(lines)
    assert len(found.leases) == LEASES_MAX
    assert found.bad_lines == 5000 - LEASES_MAX


def test_addresses_have_one_form():
    assert clean_ip("FD00:0::0001") == "fd00::1"
    assert clean_ip("fe80::1%eth0") is None
    assert clean_mac("02:00:00:77:00:0A") == "02:00:00:77:00:0a"
    assert clean_mac("01:00:5e:00:00:01") is None
    assert clean_text("\ud800\x07", length_max=5) is None
