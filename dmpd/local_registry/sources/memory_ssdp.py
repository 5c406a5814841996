"""SSDP on a ``MemoryLan``: the twin of ``LanEther``, and devices that answer on it.

The source above it is the real one: what is imitated here is only how datagrams and answers travel.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from dmpd.local_registry.sources.dial_description import BODY_BYTES_MAX
from dmpd.local_registry.sources.http_answer import Answer, Location, parse_answer
from dmpd.local_registry.sources.lan_addresses import LanAddresses
from dmpd.local_registry.sources.memory import MemoryDevice, MemoryLan
from dmpd.local_registry.sources.ssdp import SsdpSource
from dmpd.local_registry.sources.ssdp_ether import Receive

ROUTER: Final = "10.77.0.1"
PREFIX: Final = ipaddress.IPv4Network("10.77.0.0/22")


class MemoryResponder(Struct, kw_only=True):
    """What a device answers; change it as you like."""

    device: MemoryDevice
    datagrams: list[bytes]
    """Its replies to a search for their ST."""
    pages: dict[str, bytes] = {}
    """Its HTTP answers, head and body, by path; by ``METHOD path`` for another method than GET."""
    fetched: list[str] = []
    """What it was asked for, so written."""
    bodies: list[bytes] = []
    """And with which body."""


class MemoryEther:
    """The ``Ether`` of a ``MemoryLan``; all methods on the event loop that consumes the sources."""

    def __init__(self, lan: MemoryLan) -> None:
        self._lan = lan
        self._receive: Receive | None = None
        self.responders: list[MemoryResponder] = []
        self.source = SsdpSource(self, lan.neighbours.mac_of)

    def open(self, receive: Receive) -> None:
        self._receive = receive

    def close(self) -> None:
        self._receive = None

    def addresses(self) -> LanAddresses:
        return LanAddresses(networks=(PREFIX,), own=frozenset({ROUTER}))

    def send(self, datagram: bytes, ip: str | None) -> None:
        asked = _header(datagram, b"ST")
        for responder in self.responders:
            if ip in (None, responder.device.ip):
                for reply in responder.datagrams:
                    if _header(reply, b"ST") == asked:
                        self._later(partial(self.say, responder.device, reply))

    def say(self, device: MemoryDevice, datagram: bytes) -> None:
        """``device`` sends a datagram, to the group or to the router; it arrives if its cable is in."""
        if self._receive is not None and self._lan.reaches(device):
            self._receive(datagram, device.ip)

    async def fetch(self, location: Location, *, method: str = "GET", body: bytes = b"") -> Answer | None:
        for responder in self.responders:
            if responder.device.ip == location.ip and self._lan.reaches(responder.device):
                asked = location.path if method == "GET" else f"{method} {location.path}"
                responder.fetched.append(asked)
                responder.bodies.append(body)
                return parse_answer(responder.pages.get(asked, b""), body_bytes_max=BODY_BYTES_MAX)
        return None

    @staticmethod
    def _later(deliver: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(deliver)


def _header(datagram: bytes, name: bytes) -> bytes | None:
    for line in datagram.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().upper() == name:
            return value.strip()
    return None
