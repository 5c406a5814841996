"""The lab's LAN without a LAN: names, command lines, and the reasons why there can be none."""

import ipaddress
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.lab import lan_tools
from dmpd.lab.lan import LanLab, LanLabError, available


@pytest.fixture
def programs(monkeypatch):
    """Every program seems to be installed."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/bin/{name}")


def test_duts_are_found_by_name_and_by_number(tmp_path):
    lab = LanLab("dmpd-ab12", tmp_path, 2)
    assert [dut.name for dut in lab.duts()] == ["d1", "d2"]
    assert lab.dut("d2") == lab.dut("2") == lab.dut(2)
    assert lab.dut(2).namespace == "dmpd-ab12-d2"
    assert len({dut.mac for dut in lab.duts()}) == 2
    with pytest.raises(LanLabError, match="there is no DUT d3; there are d1, d2"):
        lab.dut("d3")


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "-a", "x" * 40, "a\n"])
def test_a_name_that_cannot_be_a_namespace_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a lab's name"):
        LanLab(name, tmp_path)


@pytest.mark.usefixtures("programs")
def test_programs_run_in_their_namespaces_and_in_the_foreground(tmp_path):
    lab = LanLab("dmpd-ab12", tmp_path, 1)
    inside = ["/usr/bin/ip", "netns", "exec"]
    assert lab.router_command(["true", "x"]) == [*inside, "dmpd-ab12-router", "true", "x"]
    dnsmasq = lab.dnsmasq_command()
    assert dnsmasq[:5] == [*inside, "dmpd-ab12-router", "/usr/bin/dnsmasq"]
    assert {"--keep-in-foreground", "--no-ping", "--port=0", f"--dhcp-leasefile={lab.lease_file}"} <= set(dnsmasq)
    assert not [word for word in dnsmasq if "script" in word]
    hooked = lab.dnsmasq_command(tmp_path / "lease.sock")
    assert hooked[4:6] == ["/usr/bin/env", f"DMPD_LEASE_SOCKET={tmp_path / 'lease.sock'}"]
    assert [word for word in hooked if word not in dnsmasq][2:] == [f"--dhcp-script={tmp_path / 'lease_hook.py'}"]
    dut = lab.dut_command("d1")
    assert dut[3:8] == ["dmpd-ab12-d1", "/usr/bin/busybox", "udhcpc", "-f", "-i"]
    assert "hostname:dut-1" in dut


def test_who_is_not_root_is_told_so_in_one_line(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert available() == "network namespaces need root"


def test_a_missing_program_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "dnsmasq" else f"/usr/bin/{name}")
    assert available() == "dnsmasq is not installed (apt-get install dnsmasq-base)"


@given(st.lists(st.integers(0, 30).map(lambda n: ipaddress.IPv4Network(f"10.{192 + n}.0.0/16")), max_size=25))
def test_an_uplink_touches_no_network_that_is_used(taken):
    found = lan_tools.free_uplink(taken)
    assert found.prefixlen == 30
    assert not any(found.overlaps(network) for network in taken)


def test_no_free_uplink_is_an_error_and_no_endless_search():
    with pytest.raises(LanLabError, match="no free /30"):
        lan_tools.free_uplink([ipaddress.IPv4Network("10.0.0.0/8")])
