"""The whole platform with a hostile device on the LAN: memory is bounded, the other devices' rows go on being true."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpd.lab import lan_parts
from dmpd.lab.lan_tools import in_namespace
from dmpd.local_registry.sources.ssdp_ether import GROUP, PORT
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, MDX_TARGETS
from tests.support.platform import LabUnderTest, running_lab, until
from tests.support.ssdp_device import SsdpDevice, description, flood, notify, page

pytestmark = [pytest.mark.services, pytest.mark.namespaces, pytest.mark.timeout(400)]

DUTS = 7
"""Each test has its own witness: one that goes and returns twice in minutes is flapping."""
DAEMON = "local-registry-lan"
HTTP_PORT = 8010
GROWTH_MAX_MIB = 48
"""Of the daemon, over everything below: 4,096 made-up devices are kept as any others are."""
WAIT_S = 150.0
"""A device taken for offline is asked ever less often."""

_MADE_UP_MACS = """
import socket, struct, sys, time
count = int(sys.argv[1])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
router = socket.inet_aton("10.77.0.1")
for n in range(count):
    mac = b"\\x02\\x66" + struct.pack("!I", n)
    ip = bytes([10, 77, 3, 1 + n % 250])
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, ip, bytes(6), router)
    sock.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp)
    time.sleep(0.0005)
"""


class Hostile:
    """A lab whose d1 is hostile, and whose other devices must not notice."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.lan = lan_parts.lan_of(lab.folder)

    def states(self) -> dict[str, str]:
        """Open sessions of real devices by host name."""
        found = self.lab.query(
            "SELECT i.hostname, d.state FROM device_session d JOIN device_interface i USING (rae, session) "
            "WHERE d.rae = %s AND d.closed_at IS NULL AND i.place = 0 AND i.hostname LIKE 'dut-%%'",
            lan_parts.RAE,
        )
        return dict(found)

    def all_online(self) -> bool:
        return list(self.states().values()) == ["online"] * DUTS

    def pid(self) -> int:
        return next(part.pid for part in self.lab.supervisor.states() if part.name == DAEMON)

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.pid()}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    @contextlib.contextmanager
    def unharmed(self, dut: str) -> Iterator[None]:
        """What happens inside harms nobody: ``dut``'s cable is seen meanwhile, the daemon lives and does not grow."""
        until(self.all_online, "all are online", WAIT_S, said=lambda: str(self.states()))
        pid, before_mib = self.pid(), self.resident_mib()
        yield
        name = f"dut-{dut[1:]}"
        self.lan.unplug(dut)
        until(lambda: self.states().get(name) == "offline", f"{dut} unplugged is offline", WAIT_S)
        self.lan.plug(dut)
        until(lambda: self.states().get(name) == "online", f"{dut} plugged in is online", WAIT_S)
        assert self.pid() == pid, "the daemon lives"
        grown_mib = self.resident_mib() - before_mib
        print(f"grown by {grown_mib:.1f} MiB")
        assert grown_mib < GROWTH_MAX_MIB


@pytest.fixture(scope="module")
def hostile():
    with running_lab("--lan", "--devices", str(DUTS)) as lab:
        yield Hostile(lab)


def test_ten_thousand_announcements_a_second(hostile):
    datagram = notify(MDX_TARGETS[0], "FLOOD-########", "ssdp:alive")
    namespace = hostile.lan.dut("d1").namespace
    with (
        hostile.unharmed("d2"),
        flood(namespace, datagram, per_s=10_000, seconds=5.0, to=(GROUP, PORT)) as child,
    ):
        hostile.lan.unplug("d3")
        until(lambda: hostile.states().get("dut-3") == "offline", "d3 is seen to leave meanwhile", WAIT_S)
        hostile.lan.plug("d3")
        child.wait(60)
        print(f"flood: {float(child.stdout.read()):.0f}/s")


def test_announcements_from_made_up_addresses(hostile):
    datagram = notify(MDX_TARGETS[0], "SPOOF-00000001", "ssdp:alive")
    router = "10.77.0.1"
    namespace = hostile.lan.dut("d1").namespace
    with (
        hostile.unharmed("d4"),
        flood(namespace, datagram, per_s=10_000, seconds=3.0, spoofed=True, to=(router, PORT)) as child,
    ):
        child.wait(60)
    esns = hostile.lab.query("SELECT count(*) FROM device_session WHERE esn = 'SPOOF-00000001'")
    assert esns == [(0,)], "an address that nobody has speaks for nobody"


def trap(namespace: str) -> socket.socket:
    """A port at which nobody may knock; a knock waits in its queue."""
    return in_namespace(namespace, lambda: socket.create_server(("", HTTP_PORT + 1)))


def test_descriptions_that_are_traps(hostile):
    until(hostile.all_online, "all are online", WAIT_S, said=lambda: str(hostile.states()))
    dut, other = hostile.lan.dut("d1"), hostile.lan.dut("d2")
    (own,) = hostile.lab.query("SELECT i.ip4 FROM device_interface i WHERE i.hostname = 'dut-1'")[0]
    (theirs,) = hostile.lab.query("SELECT i.ip4 FROM device_interface i WHERE i.hostname = 'dut-2'")[0]
    bomb = b'<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><root><device><modelName>&c;</modelName></device></root>'
    elsewhere = f"http://{theirs}:{HTTP_PORT + 1}/dd.xml"
    pages = {
        "/large.xml": page(b"<root><device><modelName>" + b"x" * (1 << 20) + b"</modelName></device></root>"),
        "/bomb.xml": page(bomb),
        "/moved.xml": page(b"", f"Location: {elsewhere}", status="302 Found"),
        "/never.xml": None,
        "/honest.xml": description(own, "after all"),
    }
    urls = [f"http://{own}:{HTTP_PORT}{path}" for path in pages]
    urls[-1:-1] = [
        elsewhere,
        f"http://10.77.0.1:{HTTP_PORT + 1}/",
        f"http://127.0.0.1:{HTTP_PORT + 1}/",
        "file:///etc/",
    ]
    traps = [trap(one.namespace) for one in (other,)] + [trap(hostile.lan.router_namespace)]
    with contextlib.ExitStack() as stack:
        for one in traps:
            stack.enter_context(one)
            one.setblocking(False)
        device = stack.enter_context(SsdpDevice(dut.namespace, http_port=HTTP_PORT))
        device.pages = pages
        with hostile.unharmed("d5"):
            for number, url in enumerate(urls):
                said = notify(DIAL_TARGET, f"trap-{number}", "ssdp:alive").replace(
                    b"\r\n\r\n", f"\r\nLOCATION: {url}\r\n\r\n".encode()
                )

                def is_asked(url: str = url, said: bytes = said) -> bool:
                    device.say(said)
                    time.sleep(0.2)  # the pace of saying it again
                    return (
                        not url.startswith(f"http://{own}")
                        or url.removeprefix(f"http://{own}:{HTTP_PORT}") in device.fetched
                    )

                until(is_asked, f"{url} is asked for, or not to be asked for", WAIT_S)
        for one in traps:
            with pytest.raises(BlockingIOError):
                one.accept()
    assert set(device.fetched) <= {*pages, "/apps/Netflix?clientDialVer=2.1"}


def test_five_thousand_made_up_macs(hostile):
    namespace = hostile.lan.dut("d1").namespace
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", _MADE_UP_MACS, "5000"]
    with hostile.unharmed("d6"):
        subprocess.run(command, check=True, timeout=60)
    open_sessions = hostile.lab.query("SELECT count(*) FROM device_session WHERE closed_at IS NULL")[0][0]
    print(f"{open_sessions} device sessions")
    assert open_sessions <= 4096


def test_a_host_name_with_control_characters(hostile):
    name = "\x1b[31mtv\x07"
    words = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", "/bin/true", "-x", f"hostname:{name}"]
    with hostile.unharmed("d7"):
        done = hostile.lab.lab("sh", "d1", "--", *words)
        assert done.returncode == 0, done.stderr
    names = [row[0] for row in hostile.lab.query("SELECT hostname FROM device_interface WHERE hostname IS NOT NULL")]
    assert names
    assert all(one.isprintable() for one in names)
