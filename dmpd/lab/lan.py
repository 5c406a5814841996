"""The lab's LAN: a router and its DUTs in network namespaces, with real DHCP and real cables to pull.

``NAME-router`` holds the bridge ``br-lan`` (10.77.0.1/22) with one port per DUT (``lan1``, ``lan2``, …) and dnsmasq;
``NAME-d1``, ``NAME-d2``, … hold a DUT each: ``eth0``, a DHCP client, and what answers SSDP and DIAL (``duts``). A veth
pair joins the router to the namespace of the caller, so that a Local Registry in the router's namespace reaches a
broker outside.

This module makes namespaces, links and addresses; who runs the programs (``dnsmasq_command``, ``dut_command``) is the
caller's choice: supervisord in the lab, child processes in tests. Everything blocks, for milliseconds up to a second.
Needs root: ask ``available`` first.
"""

import os
import re
import signal
import zlib
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from msgspec import Struct

from dmpd.lab import lan_tools as tools
from dmpd.lab.lan_tools import LanLabError

LAN_INTERFACE: Final = "br-lan"
"""The bridge in the router's namespace: what the Local Registry's ``lan.interface`` names."""

DUTS_MAX: Final = 250
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_LAN_ADDRESS: Final = "10.77.0.1/22"
_LEASE_RANGE: Final = "10.77.1.1,10.77.2.250,5m"
_BRIDGE_MAC: Final = "02:00:00:77:ff:01"
_HOOK: Final = Path(__file__).with_name("lan_udhcpc.sh")
_LEASE_HOOK: Final = Path(__file__).parents[1] / "local_registry" / "sources" / "lease_hook.py"


class Dut(Struct, frozen=True, kw_only=True):
    """One device under test: who it is, and where it is plugged in."""

    number: int
    name: str
    """``d1``, ``d2``, …: what people type."""
    namespace: str
    mac: str
    """What it has when it comes out of the box; people swap it."""
    hostname: str
    port: str
    """The bridge port at the router's end of its cable."""


def available() -> str | None:
    """Why namespaces cannot be used here, in one line; None = they can. Blocks for some 20 ms, leaves nothing."""
    return tools.unavailable_reason()


class LanLab:
    """One LAN. ``name`` makes its namespaces unique on the machine; two labs with different names do not meet.

    The kernel holds the state: an object made anew with the same arguments, by another process too, acts on the LAN
    that is there. Not for two processes calling ``up`` or ``down`` at once.

    Args:
        name: Prefix of all namespaces, for example ``dmpd-ab12``: ``[a-z0-9-]``, at most 31 characters.
        state_dir: For the lease file and the hook; exists, or is made by ``up``.
        devices: Number of DUTs, 1 .. 250.
    """

    def __init__(self, name: str, state_dir: Path, devices: int = 3) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a lab's name is 1 to 31 of a-z, 0-9 and -, got {name!r}")
        if not 1 <= devices <= DUTS_MAX:
            raise ValueError(f"a lab has 1 to {DUTS_MAX} DUTs, got {devices}")
        self.name = name
        self.state_dir = state_dir
        self.router_namespace = f"{name}-router"
        self.lease_file = state_dir / "dnsmasq.leases"
        self._hook = state_dir / "udhcpc.sh"
        self._lease_hook = state_dir / "lease_hook.py"
        self._uplink = f"dmpd-{zlib.crc32(name.encode()):08x}"
        self._duts = [self._make_dut(number) for number in range(1, devices + 1)]

    def duts(self) -> list[Dut]:
        """All DUTs, by number."""
        return list(self._duts)

    def dut(self, name: str | int) -> Dut:
        """The DUT of that name (``d2``) or number (``2``, as text too).

        Raises:
            LanLabError: There is none; the text lists those that are.
        """
        wanted = str(name).removeprefix("d")
        for dut in self._duts:
            if str(dut.number) == wanted:
                return dut
        raise LanLabError(f"there is no DUT {name}; there are {', '.join(dut.name for dut in self._duts)}")

    def up(self) -> None:
        """Make the LAN, all cables plugged, after removing what a dead run of this name left. Starts no program.

        Raises:
            LanLabError: A step failed; nothing of this LAN is left then.
        """
        self.down()
        self.state_dir.mkdir(parents=True, exist_ok=True)
        # A copy, because an installed package need not have kept the bit that makes a script a program.
        for source, copy in ((_HOOK, self._hook), (_LEASE_HOOK, self._lease_hook)):
            copy.write_bytes(source.read_bytes())
            copy.chmod(0o755)
        try:
            self._make_router()
            for dut in self._duts:
                self._make_device(dut)
            self._make_uplink()
        except LanLabError:
            with suppress(LanLabError):  # the first failure is the one to tell
                self.down()
            raise

    def down(self) -> None:
        """Remove every namespace of this name, with the processes that still run in them, and the uplink.

        Idempotent: what is not there is no error. The state folder stays. Ends programs the hard way after 3 s, so stop
        them first where that matters.

        Raises:
            LanLabError: Something could not be removed.
        """
        own = re.compile(rf"{re.escape(self.name)}-(router|d[0-9]+)")
        if self._has_uplink():
            # At once and with its other end; the kernel takes its time to take a namespace apart.
            tools.run(["ip", "link", "delete", self._uplink])
        for namespace in tools.namespaces():
            if own.fullmatch(namespace):
                tools.delete_namespace(namespace)

    def is_up(self) -> bool:
        """Whether the router's namespace is there."""
        return self.router_namespace in tools.namespaces()

    def plug(self, dut: str | int) -> None:
        """Put the cable of a DUT in: its bridge port gets carrier, and its DHCP client asks again. Idempotent.

        Raises:
            LanLabError: No such DUT, or the LAN is not up.
        """
        found = self.dut(dut)
        tools.run(["ip", "-n", found.namespace, "link", "set", "eth0", "up"])
        for pid in tools.processes_in(found.namespace):
            # A device's DHCP client asks again when its link comes back; udhcpc does not watch the link, so tell it.
            if _runs_udhcpc(pid):
                with suppress(ProcessLookupError):  # it ended just now; its successor asks by itself
                    os.kill(pid, signal.SIGUSR1)

    def unplug(self, dut: str | int) -> None:
        """Pull the cable of a DUT: its bridge port loses carrier at once. Idempotent.

        Raises:
            LanLabError: No such DUT, or the LAN is not up.
        """
        tools.run(["ip", "-n", self.dut(dut).namespace, "link", "set", "eth0", "down"])

    @property
    def uplink_broker_address(self) -> str:
        """The IPv4 address of the caller's end of the uplink: where a broker listens for the router. After ``up``.

        Raises:
            LanLabError: The LAN is not up.
        """
        for link in tools.run_json(["ip", "-j", "-4", "address", "show", "dev", self._uplink]):
            for entry in link.get("addr_info", ()):
                return str(entry["local"])
        raise LanLabError(f"{self._uplink} has no address: the LAN {self.name} is not up")

    def router_command(self, argv: Sequence[str]) -> list[str]:
        """``argv`` as a command line that runs in the router's namespace, in place (same process id). Needs root."""
        return _inside(self.router_namespace, argv)

    def dnsmasq_command(self, lease_socket: Path | None = None) -> list[str]:
        """The LAN's DHCP server; stays in the foreground and logs to its standard error.

        It tells of leases at ``lease_socket`` too, if given.
        """
        environment, script = [], []
        if lease_socket is not None:
            environment = [tools.program("env"), f"DMPD_LEASE_SOCKET={lease_socket}"]
            script = [f"--dhcp-script={self._lease_hook}"]
        return self.router_command(
            [
                *environment,
                *(tools.program("dnsmasq"), "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"),
                *("--port=0", "--no-resolv", "--no-hosts", f"--interface={LAN_INTERFACE}", "--bind-dynamic"),
                *(f"--dhcp-range={_LEASE_RANGE}", "--dhcp-authoritative", "--no-ping", "--dhcp-lease-max=1000"),
                # root, because its own user may not exist, nor have a way into the state folder.
                *(f"--dhcp-leasefile={self.lease_file}", f"--pid-file={self.state_dir / 'dnsmasq.pid'}", "--user=root"),
                *script,
            ]
        )

    def dut_command(self, dut: str | int) -> list[str]:
        """A DUT's DHCP client; stays in the foreground, asks until it has a lease, and renews it for ever."""
        found = self.dut(dut)
        return _inside(
            found.namespace,
            [
                *(tools.program("busybox"), "udhcpc", "-f", "-i", "eth0", "-s", str(self._hook)),
                *("-x", f"hostname:{found.hostname}", "-V", f"dmpd-lab-{found.name}", "-t", "5", "-T", "1", "-A", "1"),
            ],
        )

    def _make_dut(self, number: int) -> Dut:
        return Dut(
            number=number,
            name=f"d{number}",
            namespace=f"{self.name}-d{number}",
            mac=f"00:00:5e:00:53:{number:02x}",  # reserved for examples, RFC 7042 §2.1.2
            hostname=f"dut-{number}",
            port=f"lan{number}",
        )

    def _make_router(self) -> None:
        router = ["ip", "-n", self.router_namespace]
        tools.run(["ip", "netns", "add", self.router_namespace])
        tools.run([*router, "link", "set", "lo", "up"])
        tools.run([*router, "link", "add", LAN_INTERFACE, "address", _BRIDGE_MAC, "type", "bridge"])
        tools.run([*router, "address", "add", _LAN_ADDRESS, "dev", LAN_INTERFACE])
        tools.run([*router, "link", "set", LAN_INTERFACE, "up"])

    def _make_device(self, dut: Dut) -> None:
        router, device = ["ip", "-n", self.router_namespace], ["ip", "-n", dut.namespace]
        tools.run(["ip", "netns", "add", dut.namespace])
        cable = ["type", "veth", "peer", "name", "eth0", "address", dut.mac, "netns", dut.namespace]
        tools.run([*router, "link", "add", "name", dut.port, *cable])
        tools.run([*router, "link", "set", dut.port, "master", LAN_INTERFACE])
        tools.run([*router, "link", "set", dut.port, "up"])
        tools.run([*device, "link", "set", "lo", "up"])
        tools.run([*device, "link", "set", "eth0", "up"])

    def _make_uplink(self) -> None:
        peer = ["type", "veth", "peer", "name", "uplink", "netns", self.router_namespace]
        tools.run(["ip", "link", "add", "name", self._uplink, *peer])
        lan = IPv4Network(_LAN_ADDRESS, strict=False)
        ours, theirs = tools.free_uplink([*tools.used_networks(), lan]).hosts()
        tools.run(["ip", "address", "add", f"{ours}/30", "dev", self._uplink])
        tools.run(["ip", "link", "set", self._uplink, "up"])
        router = ["ip", "-n", self.router_namespace]
        tools.run([*router, "address", "add", f"{theirs}/30", "dev", "uplink"])
        tools.run([*router, "link", "set", "uplink", "up"])

    def _has_uplink(self) -> bool:
        return any(link.get("ifname") == self._uplink for link in tools.run_json(["ip", "-j", "link", "show"]))


def _inside(namespace: str, argv: Sequence[str]) -> list[str]:
    return [tools.program("ip"), "netns", "exec", namespace, *argv]


def _runs_udhcpc(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it ended
        return False
    return b"udhcpc" in words
