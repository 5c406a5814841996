"""The lab's LAN itself: made, unmade, and made again over what a dead run left."""

import os
import socket
import subprocess
import uuid

import pytest

from dmpd.lab import lan_tools
from dmpd.lab.lan import LanLab, LanLabError, available
from tests.support.lan import running_lan

pytestmark = pytest.mark.namespaces


@pytest.fixture
def lab():
    with running_lan(devices=2) as lan:
        yield lan.lab


def test_the_router_reaches_a_broker_at_the_uplink_address(lab):
    with socket.create_server((lab.uplink_broker_address, 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        client = subprocess.Popen(lab.router_command(["busybox", "nc", lab.uplink_broker_address, str(port)]))
        try:
            connection, peer = server.accept()
            connection.close()
            assert peer[0] != lab.uplink_broker_address
        finally:
            client.terminate()
            client.wait(5)


def test_two_labs_do_not_meet(lab, tmp_path):
    other = LanLab(f"dmpd-t{uuid.uuid4().hex[:8]}", tmp_path, 1)
    other.up()
    try:
        assert other.uplink_broker_address != lab.uplink_broker_address
        other.down()
        assert lab.is_up()
        assert not other.is_up()
    finally:
        other.down()


def test_a_name_that_begins_like_another_is_left_alone(lab, tmp_path):
    shorter = LanLab(lab.name[:-1], tmp_path, 1)
    shorter.down()
    assert lab.is_up()


def test_up_clears_what_a_dead_run_left_with_its_processes(lab):
    left = subprocess.Popen(lab.router_command(["sleep", "600"]))
    before = lab.uplink_broker_address
    LanLab(lab.name, lab.state_dir, 1).up()
    assert left.wait(5) < 0
    assert f"{lab.name}-d2" not in lan_tools.namespaces()
    assert before
    assert lan_tools.processes_in(lab.router_namespace) == []


def test_down_again_is_no_error(lab):
    lab.down()
    lab.down()
    with pytest.raises(LanLabError):
        _ = lab.uplink_broker_address


def test_the_cable_can_be_pulled_and_put_back_twice(lab):
    port = ["cat", f"/sys/class/net/{lab.dut('d1').port}/carrier"]
    for _twice in range(2):
        lab.unplug("d1")
        assert lan_tools.run(lab.router_command(port)) == "0\n"
    for _twice in range(2):
        lab.plug(1)
        assert lan_tools.run(lab.router_command(port)) == "1\n"


def test_a_failing_command_is_named_with_what_it_said(lab):
    with pytest.raises(LanLabError, match=r"ip -n \S+ link set eth9 up: Cannot find device"):
        lan_tools.run(["ip", "-n", lab.dut("d1").namespace, "link", "set", "eth9", "up"])


def test_this_machine_can_have_namespaces():
    assert os.geteuid() == 0
    assert available() is None
