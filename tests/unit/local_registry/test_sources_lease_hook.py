"""The program that dnsmasq runs: it tells what there is to tell, and never delays or fails dnsmasq."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dmpd.local_registry.sources import lease_hook
from dmpd.local_registry.sources.lease_script import DATAGRAM_BYTES_MAX, LeaseEvent, parse

HOOK = Path(lease_hook.__file__)
ADD = ["add", "02:00:00:77:00:01", "10.77.1.84", "dut-1"]
# What dnsmasq 2.90 gave for a DHCP ACK to udhcpc -V acme-cam1.
ENVIRONMENT = {
    "DNSMASQ_DOMAIN": "lab.test",
    "DNSMASQ_TIME_REMAINING": "300",
    "DNSMASQ_REQUESTED_OPTIONS": "1,3,6,12,15,28,42",
    "DNSMASQ_CLIENT_ID": "01:02:00:00:77:00:01",
    "DNSMASQ_LEASE_EXPIRES": "1795600168",
    "DNSMASQ_SUPPLIED_HOSTNAME": "dut-1",
    "DNSMASQ_TAGS": "br-lan",
    "DNSMASQ_INTERFACE": "br-lan",
    "DNSMASQ_VENDOR_CLASS": "acme-cam1",
}
EVENT = LeaseEvent(action="add", mac="02:00:00:77:00:01", ip="10.77.1.84", hostname="dut-1", vendor_class="acme-cam1")


def run(path: Path, arguments=ADD, environment=ENVIRONMENT) -> None:
    """As dnsmasq does; anything but a silent success fails."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", HOOK, *arguments],
        env={**environment, "DMPD_LEASE_SOCKET": str(path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / "lease.sock"))
        yield listener


def test_what_dnsmasq_gives_arrives(tmp_path, listener):
    run(tmp_path / "lease.sock")
    assert parse(listener.recv(DATAGRAM_BYTES_MAX)) == EVENT


def test_it_is_a_program_of_its_own(tmp_path, listener):
    """dnsmasq runs a path, with no arguments of ours; the interpreter is the system's, which knows no dmpd."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no python3 of the system")
    assert os.access(HOOK, os.X_OK)
    environment = {**ENVIRONMENT, "DMPD_LEASE_SOCKET": str(tmp_path / "lease.sock")}
    subprocess.run([HOOK, *ADD], env=environment, timeout=60, check=True)
    assert parse(listener.recv(DATAGRAM_BYTES_MAX)) == EVENT


def test_nobody_listening_is_no_trouble(tmp_path):
    run(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    run(tmp_path / "file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(tmp_path / "dead"))
    run(tmp_path / "dead")
    run(tmp_path / ("long" * 50))


def fill(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filler:
        while True:
            filler.sendto(b"x", str(path))


def test_who_listens_and_never_reads_holds_nobody_up(tmp_path, listener):
    with pytest.raises(BlockingIOError):
        fill(tmp_path / "lease.sock")
    run(tmp_path / "lease.sock")


@pytest.mark.parametrize(
    "arguments",
    [[], ["init"], ["add"], ["arp-add", *ADD[1:]], ["tftp", "1", "10.77.1.84", "/file"], [*ADD, "more"]],
)
def test_what_is_nothing_of_a_lease_is_not_told(tmp_path, listener, arguments):
    run(tmp_path / "lease.sock", arguments)
    with pytest.raises(BlockingIOError):
        listener.recv(DATAGRAM_BYTES_MAX)


def test_a_value_too_long_is_left_out():
    said = {b"DNSMASQ_VENDOR_CLASS": b"x" * 1025, b"DNSMASQ_SUPPLIED_HOSTNAME": b"dut-1"}
    event = parse(lease_hook.datagram(ADD[:3], said))
    assert (event.vendor_class, event.hostname) == (None, "dut-1")
    assert lease_hook.datagram(["add", "m" * 1025, "10.77.1.84"], {}) is None


def test_the_longest_datagram_is_one_that_is_read():
    longest = lease_hook.datagram(["add", *["w" * 1024] * 3], dict.fromkeys(lease_hook.VARIABLES, b"v" * 1024))
    assert len(longest) < DATAGRAM_BYTES_MAX
