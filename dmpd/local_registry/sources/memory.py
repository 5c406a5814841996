"""A router's LAN without a kernel and without dnsmasq: the in-memory twins of ``leases`` and ``neighbours``.

They pass the same contract tests as the real sources and share their decisions; what is imitated here is how dnsmasq
writes its leases and in which order the kernel tells what happens.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from msgspec import Struct

from dmpd.local_registry.source import Evidence, LanSignal
from dmpd.local_registry.sources import lease_book, lease_hook, lease_script, neighbour_table
from dmpd.local_registry.sources.kernel_events import (
    Forwarding,
    ForwardingGone,
    KernelEvent,
    LinkState,
    Neighbour,
    NeighbourGone,
)
from dmpd.local_registry.sources.lease_book import LeaseBook, Reading
from dmpd.local_registry.sources.lease_file import Lease
from dmpd.local_registry.sources.lease_script import Action, LeaseEvent
from dmpd.local_registry.sources.neighbour_table import NeighbourTable

LEASE_S: Final = 300
_LAN: Final = "br-lan"
_LAN_INDEX: Final = 1
_TICK_S: Final = 0.02


class MemoryDevice(Struct, kw_only=True):
    """A device of the LAN; change it through ``MemoryLan`` only."""

    mac: str
    ip: str
    hostname: str
    port: str
    vendor_class: str | None = None
    plugged: bool = False
    silent: bool = False
    """Plugged in, and dead: it answers nothing."""
    leased: bool = False


class MemoryLan:
    """The LAN. All methods are to be called on the event loop that consumes the sources.

    ``hooked`` = its dnsmasq runs ``lease_hook`` too.
    """

    def __init__(self, *, hooked: bool = False, now_s: Callable[[], float] = time.monotonic) -> None:
        self._hooked = hooked
        self._now_s = now_s
        self._devices: list[MemoryDevice] = []
        self._up = True
        self._leases: dict[str, Lease] = {}
        self.leases = MemoryLeases(now_s)
        self.neighbours = MemoryNeighbours(self._answer, now_s)
        self._tell(LinkState(index=_LAN_INDEX, name=_LAN))
        self._tell(LinkState(index=2, name="wlan0", master=_LAN_INDEX))  # a port that is never without carrier

    def add(self, mac: str, *, ip: str, hostname: str, port: str, vendor_class: str | None = None) -> MemoryDevice:
        """A new device, not plugged in yet, on a port of its own."""
        device = MemoryDevice(mac=mac, ip=ip, hostname=hostname, port=port, vendor_class=vendor_class)
        self._devices.append(device)
        self._tell(self._link_of(device))
        return device

    def plug(self, device: MemoryDevice) -> None:
        """It gets carrier, asks for a lease, gets it, and talks."""
        device.plugged = True
        self._tell(self._link_of(device))
        if self._up:
            self._talk(device)

    def unplug(self, device: MemoryDevice) -> None:
        """Its port loses carrier. The kernel flushes the port's forwarding entries before it says so."""
        device.plugged = False
        self._tell(ForwardingGone(bridge=_LAN_INDEX, port=self._index_of(device), mac=device.mac))
        self._tell(self._link_of(device))

    def release(self, device: MemoryDevice) -> None:
        """It gives its lease back, as on an orderly shutdown."""
        device.leased = False
        lease = self._leases.pop(device.ip, None)
        self._write()
        if lease is not None:
            self._run_script("del", lease)

    def lan_down(self) -> None:
        """Somebody takes the bridge down: the kernel forgets all its neighbours."""
        self._up = False
        self._tell(LinkState(index=_LAN_INDEX, name=_LAN, up=False, carrier=False))
        for device in self._devices:
            self._tell(ForwardingGone(bridge=_LAN_INDEX, port=self._index_of(device), mac=device.mac))
            self._tell(NeighbourGone(link=_LAN_INDEX, ip=device.ip))

    def lan_up(self) -> None:
        """The bridge is back, and the devices talk again."""
        self._up = True
        self._tell(LinkState(index=_LAN_INDEX, name=_LAN))
        for device in self._devices:
            if device.plugged and not device.silent:
                self._talk(device)

    def reaches(self, device: MemoryDevice) -> bool:
        """Whether a frame from the router gets to ``device`` and back."""
        return device.plugged and self._up and not device.silent

    def _talk(self, device: MemoryDevice) -> None:
        device.leased = True
        expiry = max(int(time.time()), self._expiry_of(device)) + LEASE_S
        client_id = f"01:{device.mac}"
        lease = Lease(expiry=expiry, mac=device.mac, ip=device.ip, hostname=device.hostname, client_id=client_id)
        renewed = device.ip in self._leases
        self._leases[device.ip] = lease
        self._write()
        if not renewed:  # for a renewal dnsmasq runs no script, unless told so
            self._run_script("add", lease, device.vendor_class)
        self._tell(Forwarding(bridge=_LAN_INDEX, port=self._index_of(device), mac=device.mac))
        self._tell(Neighbour(link=_LAN_INDEX, ip=device.ip, mac=device.mac, state="stale"))

    def _answer(self, ip: str) -> None:
        """The kernel asks for ``ip``, without the seconds that it takes."""
        for device in self._devices:
            if device.ip == ip:
                there = self.reaches(device)
                self._tell(Neighbour(link=_LAN_INDEX, ip=ip, mac=device.mac, state="probe"))
                mac = device.mac if there else None
                self._tell(Neighbour(link=_LAN_INDEX, ip=ip, mac=mac, state="reachable" if there else "failed"))

    def _expiry_of(self, device: MemoryDevice) -> int:
        lease = self._leases.get(device.ip)
        return 0 if lease is None else lease.expiry - LEASE_S + 1

    def _index_of(self, device: MemoryDevice) -> int:
        return 3 + self._devices.index(device)

    def _link_of(self, device: MemoryDevice) -> LinkState:
        index = self._index_of(device)
        return LinkState(index=index, name=device.port, master=_LAN_INDEX, carrier=device.plugged)

    def _write(self) -> None:
        self.leases.write(dict(self._leases))

    def _run_script(self, action: Action, lease: Lease, vendor_class: str | None = None) -> None:
        if not self._hooked:
            return
        environment = {b"DNSMASQ_VENDOR_CLASS": vendor_class.encode()} if vendor_class is not None else {}
        words = [action, lease.mac or "", lease.ip, *([lease.hostname] if lease.hostname else [])]
        datagram = lease_hook.datagram(words, environment)
        event = None if datagram is None else lease_script.parse(datagram)
        if event is not None:
            self.leases.hear(event)

    def _tell(self, event: KernelEvent) -> None:
        self.neighbours.happen(event)


class MemoryLeases:
    """The twin of ``LeaseSource``."""

    name: Final = lease_book.NAME

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._book = LeaseBook()
        self._said: asyncio.Queue[Reading | LeaseEvent] = asyncio.Queue()
        self.write({})

    def write(self, leases: dict[str, Lease]) -> None:
        """The DHCP server wrote its file."""
        self._said.put_nowait(Reading(file_id=1, leases=leases))

    def hear(self, event: LeaseEvent) -> None:
        """The DHCP server ran its script."""
        self._said.put_nowait(event)

    async def signals(self) -> AsyncIterator[LanSignal]:
        for signal in await self.dump():
            yield signal
        while True:
            said = await self._said.get()
            for signal in self._take(said):
                yield signal

    def _take(self, said: Reading | LeaseEvent) -> list[Evidence]:
        if isinstance(said, Reading):
            return self._book.update(said, now_s=self._now_s(), wall_s=time.time())
        return self._book.hear(said, now_s=self._now_s())

    async def dump(self) -> Sequence[LanSignal]:
        return self._book.known(now_s=self._now_s())

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """Nothing, like the real one."""


class MemoryNeighbours:
    """The twin of ``NeighbourSource``."""

    name: Final = neighbour_table.NAME

    def __init__(self, answer: Callable[[str], None], now_s: Callable[[], float]) -> None:
        self._answer = answer
        self._now_s = now_s
        self._table = NeighbourTable(_LAN)
        self._happened: list[KernelEvent] = []

    def happen(self, event: KernelEvent) -> None:
        """The kernel tells an event."""
        self._happened.append(event)

    async def signals(self) -> AsyncIterator[LanSignal]:
        for signal in self._table.known(self._now_s()):
            yield signal
        while True:
            happened, self._happened = self._happened, []
            found: list[LanSignal] = []
            for event in happened:
                found += self._table.apply(event, self._now_s())
            found += self._table.tick(self._now_s())
            for ip in self._table.take_doubtful():
                self._answer(ip)
            for signal in found:
                yield signal
            await asyncio.sleep(_TICK_S)

    def mac_of(self, ip: str) -> str | None:
        return self._table.mac_of(ip)

    async def dump(self) -> Sequence[LanSignal]:
        return self._table.known(self._now_s())

    async def poke(self, *, ip: str, mac: str | None) -> None:
        for address in (ip, *self._table.ask(ip, mac, self._now_s())):
            self._answer(address)
