"""A real LAN, from the DHCP server's acknowledgement to the database row: 12 and 100 devices. As root; five minutes."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from dmpd.lab import lan_parts
from dmpd.lab.duts import control
from dmpd.lab.lan import LAN_INTERFACE
from dmpd.lab.lan_tools import LanLabError, in_namespace
from dmpd.lab.observation import percentile
from dmpd.model.topics import parse_topic
from dmpd.runtime.kafka_reader import TopicReader
from tests.bench.report import Figure, figure, publish
from tests.support.platform import LabUnderTest, running_lab, until

RAE = lan_parts.RAE
JOINS = 100
ROUNDS = 10
DEATHS = 6
_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_DHCP_ACK = b"\x63\x82\x53\x63\x35\x01\x05"
"""The cookie, and the first option: message type (53), one byte, ACK (5)."""
_DEAF_AND_DUMB = (
    "ip link set eth0 arp off && nft add table inet dead && "
    "nft add chain inet dead out '{ type filter hook output priority 0; policy drop; }' && "
    "nft add chain inet dead in '{ type filter hook input priority 0; policy drop; }'"
)
ROWS = (
    "SELECT d.session::text, i.mac, d.state, d.esn, extract(epoch FROM d.applied_at)::float8 FROM device_session d "
    "JOIN device_interface i USING (rae, session) WHERE d.rae = %s AND i.place = 0 AND d.closed_at IS NULL"
)


class AckWatcher:
    """Sees the DHCP server's ACKs leave the router: MAC → when the kernel sent the first one, seconds since 1970."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.first_s: dict[str, float] = {}
        self._socket = in_namespace(lan_parts.lan_of(lab.folder).router_namespace, _packet_socket)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                frame, ancillary, _flags, _from = self._socket.recvmsg(2048, 64)
            except OSError:  # closed
                return
            mac = acknowledged(frame)
            if mac is not None:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                self.first_s.setdefault(mac, seconds + nanoseconds / 1e9)

    def close(self) -> None:
        self._socket.close()


def _packet_socket() -> socket.socket:
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    found.bind((LAN_INTERFACE, _ETH_P_ALL))
    found.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return found


def acknowledged(frame: bytes) -> str | None:
    """The MAC to which this Ethernet frame says DHCPACK; None if it is anything else."""
    udp = 14 + (frame[14] & 0x0F) * 4 if len(frame) > 300 and frame[12:14] == b"\x08\x00" else 0
    dhcp = udp + 8
    if not udp or frame[udp : udp + 4] != b"\x00\x43\x00\x44" or frame[dhcp + 236 : dhcp + 243] != _DHCP_ACK:
        return None
    return ":".join(f"{byte:02x}" for byte in frame[dhcp + 28 : dhcp + 34])


class Watcher:
    """Looks at the rows every 10 ms and remembers when each (MAC, ESN, state) was first written."""

    def __init__(self, lab: LabUnderTest) -> None:
        self._connection = psycopg.connect(lab.database.conninfo, autocommit=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.history: list[tuple[str, str, str, str | None, float]] = []
        """Session, MAC, state, ESN, and when that was first so, seconds since 1970; in the order of being seen."""
        self._thread.start()

    def _run(self) -> None:
        seen: set[tuple[Any, ...]] = set()
        while not self._stop.wait(0.01):
            for row in self._connection.execute(ROWS, (RAE,)).fetchall():
                if row not in seen:
                    seen.add(row)
                    self.history.append(row)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._connection.close()

    def first(self, holds: Callable[[str, str, str, str | None], bool], since_s: float = 0.0) -> float | None:
        """When a row was written first, from ``since_s`` on, for which ``holds(session, mac, state, esn)``."""
        return next((row[4] for row in list(self.history) if row[4] >= since_s and holds(*row[:4])), None)

    def wait(self, holds: Callable[[str, str, str, str | None], bool], since_s: float, timeout_s: float = 120) -> float:
        found: list[float] = []

        def look() -> bool:
            at_s = self.first(holds, since_s)
            found.extend([] if at_s is None else [at_s])
            return bool(found)

        until(look, "the row", timeout_s)
        return found[0]


@contextmanager
def watched(devices: int) -> Iterator[tuple[LabUnderTest, Watcher, AckWatcher]]:
    with running_lab("--lan", "--devices", str(devices)) as lab:
        acks = AckWatcher(lab)
        watcher = Watcher(lab)
        try:
            yield lab, watcher, acks
        finally:
            acks.close()
            watcher.close()


def duts(lab: LabUnderTest) -> dict[str, dict[str, Any]]:
    try:
        return control.ask(lab.folder.duts_socket, "list")
    except LanLabError:  # they are just being switched on
        return {}


def joins(lab: LabUnderTest, watcher: Watcher, acks: AckWatcher, devices: int) -> tuple[list[float], list[float]]:
    """ACK → published and ACK → row of at least ``JOINS`` devices that were never seen before, seconds."""
    leased: dict[str, float] = {}

    def all_leased() -> bool:
        told = duts(lab)
        leased.update({one["mac"]: one["leased_at"] for one in told.values() if one["leased_at"]})
        return len(told) == devices and all(one["leased_at"] for one in told.values())

    def all_rows() -> bool:
        macs = {row[1] for row in watcher.history}
        return macs >= leased.keys()

    until(all_leased, "all devices have a lease", 60)
    until(all_rows, "all devices have a row", 60)
    while len(leased) < JOINS:
        for name in duts(lab):
            control.ask(lab.folder.duts_socket, "replace", name)
        until(all_leased, "all new devices have a lease", 60)
        until(all_rows, "all new devices have a row", 60)
    sessions = {row[1]: row[0] for row in reversed(watcher.history)}
    published = first_published(lab)
    row_s: dict[str, float] = {}
    for _session, mac, _state, _esn, at_s in watcher.history:
        row_s.setdefault(mac, at_s)
    acked = acks.first_s
    return [published[sessions[mac]] - acked[mac] for mac in leased], [row_s[mac] - acked[mac] for mac in leased]


def first_published(lab: LabUnderTest) -> dict[str, float]:
    """When the bridge received each session's first message, seconds since 1970."""
    reader = TopicReader(lab.kafka, "dmp.info", start="beginning")
    found: dict[str, float] = {}
    try:
        while batch := reader.read(2.0, 10_000):
            for record in batch:
                session = parse_topic((record.key or b"").decode()).session
                received = dict(record.headers)["mqtt-received-at"].decode()
                found.setdefault(session, datetime.fromisoformat(received).timestamp())
    finally:
        reader.close()
    return found


def cables(lab: LabUnderTest, watcher: Watcher) -> tuple[list[float], list[float]]:
    """Unplug → offline row, and plug → online row, each of another device."""
    lan, offline, back = lan_parts.lan_of(lab.folder), [], []
    told = duts(lab)
    for name in list(told)[:ROUNDS]:
        mac = told[name]["mac"]
        for act, state, took in ((lan.unplug, "offline", offline), (lan.plug, "online", back)):
            at_s = time.time()
            act(name)
            took.append(watcher.wait(lambda _s, m, s, _e: (m, s) == (mac, state), at_s) - at_s)  # noqa: B023
    return offline, back


def swaps(lab: LabUnderTest, watcher: Watcher, command: str) -> list[float]:
    """Command → row with the other MAC or ESN, in the same session."""
    took = []
    for name, before in list(duts(lab).items())[-ROUNDS:]:
        session = next(row[0] for row in reversed(watcher.history) if row[1] == before["mac"])
        at_s = time.time()
        now = control.ask(lab.folder.duts_socket, command, name)
        wanted = (session, now["mac"], now["esn"])  # in whatever state: whose cable was pulled before is flapping
        took.append(watcher.wait(lambda s, mac, _state, esn: (s, mac, esn) == wanted, at_s) - at_s)  # noqa: B023
    return took


def deaths(lab: LabUnderTest, watcher: Watcher) -> list[float]:
    """Traffic stops, the cable stays in → offline row, with the field's grace; the devices die at random moments."""
    overlay = lab.folder.lan / "local-registry.d"
    overlay.mkdir()
    (overlay / "grace.yaml").write_text("presence:\n  grace_s: 60\n")
    lab.supervisor.stop("local-registry-lan")
    lab.supervisor.restart("local-registry-lan")
    until(lambda: lab.health()["local-registry-lan"].get("state") == "ready", "the RAE is ready again", 60)
    died: dict[str, float] = {}
    for name, told in list(duts(lab).items())[:DEATHS]:
        time.sleep(7)  # not a wait: the moments are to differ
        done = lab.lab("sh", name, "--", "sh", "-c", _DEAF_AND_DUMB)
        assert done.returncode == 0, done.stderr
        died[told["mac"]] = time.time()
    return [
        watcher.wait(lambda _s, m, s, _e: (m, s) == (mac, "offline"), at_s, 200) - at_s  # noqa: B023
        for mac, at_s in died.items()
    ]


def resident_mib(lab: LabUnderTest) -> float:
    pid = next(part.pid for part in lab.supervisor.states() if part.name == "local-registry-lan")
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def tail(name: str, values: list[float], bar: str) -> list[Figure]:
    """The 50th and 99th percentile of one series; the range is that of all its values."""
    found = []
    for share in (0.5, 0.99):
        one = figure(f"{name}/p{int(share * 100)}", "s", values, bar=bar if share > 0.9 else None)
        one.value = percentile(values, share) if share > 0.9 else median(values)
        found.append(one)
    return found


def main() -> None:
    figures: list[Figure] = []
    for devices in (12, 100):
        with watched(devices) as (lab, watcher, acks):
            published, rows = joins(lab, watcher, acks, devices)
            figures += tail(f"ack_to_published/{devices}", published, "p99 <= 1 s")
            figures += tail(f"ack_to_row/{devices}", rows, "p99 <= 2 s")
            offline, back = cables(lab, watcher)
            figures.append(figure(f"unplug_to_offline/{devices}", "s", offline, bar="<= 20 s"))
            figures.append(figure(f"plug_to_online/{devices}", "s", back, bar="<= 3 s"))
            figures.append(figure(f"mac_swap/{devices}", "s", swaps(lab, watcher, "swap-mac"), bar="same session"))
            figures.append(figure(f"esn_swap/{devices}", "s", swaps(lab, watcher, "swap-esn"), bar="same session"))
            figures.append(figure(f"rae_rss/{devices}", "MiB", [resident_mib(lab)], bar="<= 80 MiB at 200"))
            if devices == 12:
                figures.append(figure("silent_death_to_offline", "s", deaths(lab, watcher), bar="<= 90 s"))
    publish("lan", figures)


if __name__ == "__main__":
    main()
