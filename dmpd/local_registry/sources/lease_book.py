"""What the difference between two readings of the lease file says of devices, and what dnsmasq's script adds to it.

Pure; the clocks are passed in.
"""

from msgspec import Struct
from msgspec.structs import replace

from dmpd.local_registry.source import Evidence
from dmpd.local_registry.sources.lease_file import Lease
from dmpd.local_registry.sources.lease_script import LeaseEvent

NAME = "leases"


class Reading(Struct, frozen=True, kw_only=True):
    """One reading. ``file_id`` tells whether it is still the same file."""

    file_id: int
    leases: dict[str, Lease] = {}


class LeaseBook:
    """Remembers the last reading and turns the next one into evidence.

    - A new or renewed lease is a sign of life: its device just talked to us. The first reading is not, it may be old;
      nor is a lease that lost its host name because another device came with the same one.
    - A lease that vanished before its end was given back: the device left. One that ran out says nothing for sure.
    - What is missing while the file is being written over is not gone, and does not come back when it is there again.
    - A file that was emptied or replaced is a file's misfortune, not the devices': nobody left.
    - Who came and who left is for the file alone to say, the script only adds what the file does not have: dnsmasq
      writes the file first and runs its scripts one by one, so that after many joins they are seconds late.
    """

    def __init__(self) -> None:
        self._last: Reading | None = None

    def update(self, reading: Reading, *, now_s: float, wall_s: float, settled: bool = True) -> list[Evidence]:
        """Take in a reading and return what it says. ``now_s`` is monotonic, ``wall_s`` Unix time.

        ``settled`` = nobody has written to the file for a while; until then a lease that is missing is kept.
        """
        last = self._last
        if last is not None and not settled:
            reading = Reading(file_id=last.file_id, leases=last.leases | reading.leases)
        self._last = reading
        if last is None:
            return self.known(now_s=now_s)
        found = [
            _evidence(lease, now_s=now_s, alive=_is_fresh(lease, last.leases.get(ip)))
            for ip, lease in reading.leases.items()
            if lease != last.leases.get(ip)
        ]
        trusted = reading.file_id == last.file_id and bool(reading.leases)
        still_here = {lease.mac for lease in reading.leases.values()}
        for ip, lease in last.leases.items():
            if ip not in reading.leases and lease.mac is not None and lease.mac not in still_here:
                left = trusted and (lease.expiry == 0 or wall_s < lease.expiry - 1)
                found.append(_farewell(lease, now_s=now_s, left=left))
        return found

    def hear(self, event: LeaseEvent, *, now_s: float) -> list[Evidence]:
        """What a call of the script adds to its lease in the last reading; the file is to be read before.

        Never a sign of life, never a farewell; nothing when the file has no such lease, or no longer.
        """
        lease = self._last.leases.get(event.ip) if self._last is not None else None
        if lease is None or lease.mac != event.mac or event.action == "del":
            return []
        hostname = lease.hostname or event.hostname
        if event.vendor_class is None and hostname == lease.hostname:
            return []
        return [replace(_evidence(lease, now_s=now_s, alive=False), hostname=hostname, vendor_class=event.vendor_class)]

    def known(self, *, now_s: float) -> list[Evidence]:
        """Everything of the last reading, without a word on who is alive."""
        leases = self._last.leases.values() if self._last is not None else ()
        return [_evidence(lease, now_s=now_s, alive=False) for lease in leases]


def _is_fresh(lease: Lease, before: Lease | None) -> bool:
    """Whether the server heard the device itself: the address is newly its own, or for longer than before."""
    return before is None or (lease.mac, lease.expiry) != (before.mac, before.expiry)


def _evidence(lease: Lease, *, now_s: float, alive: bool) -> Evidence:
    return Evidence(
        source=NAME,
        seen_at_s=now_s,
        mac=lease.mac,
        ip=lease.ip,
        hostname=lease.hostname,
        client_id=lease.client_id,
        reach="up" if alive else None,
        arrived=alive,
    )


def _farewell(lease: Lease, *, now_s: float, left: bool) -> Evidence:
    return Evidence(
        source=NAME, seen_at_s=now_s, mac=lease.mac, ip=lease.ip, reach="down" if left else "unsure", gone=left
    )
