"""The sockets of SSDP on a real LAN: searches out, datagrams in, and one HTTP question at a time.

All are bound to the LAN interface, whatever the routes say. Needs no privilege (SO_BINDTODEVICE since Linux 5.7).
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

from dmpd.local_registry.sources import lan_addresses, metrics
from dmpd.local_registry.sources.dial_description import BODY_BYTES_MAX
from dmpd.local_registry.sources.http_answer import (
    HEAD_BYTES_MAX,
    Answer,
    Location,
    is_complete,
    parse_answer,
    request,
)
from dmpd.local_registry.sources.lan_addresses import LanAddresses
from dmpd.local_registry.sources.ssdp_message import DATAGRAM_BYTES_MAX

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
FETCH_TIMEOUT_S: Final = 3.0
READS_MAX: Final = 512
DATAGRAMS_PER_TURN: Final = 64
"""Read at a time, so that a flood leaves the loop to others in between."""
_HOPS: Final = 2
_IP_MULTICAST_ALL: Final = 49

Receive = Callable[[bytes, str], None]
"""Called with a datagram, one byte longer than allowed at most, and its sender's address."""


class Ether(Protocol):
    """A LAN to speak SSDP on. For one event loop; nothing blocks."""

    def open(self, receive: Receive) -> None:
        """Begin to listen.

        Raises:
            OSError: There is no such interface, or it has no IPv4 address.
        """

    def close(self) -> None:
        """Stop. Idempotent."""

    def addresses(self) -> LanAddresses:
        """The addresses of this machine, as they are now.

        Raises:
            OSError: The kernel does not say.
        """

    def send(self, datagram: bytes, ip: str | None) -> None:
        """Send to one device, or to all that listen to SSDP.

        Raises:
            OSError: It cannot be sent; the sockets may be of an interface that is gone.
        """

    async def fetch(self, location: Location, *, method: str = "GET", body: bytes = b"") -> Answer | None:
        """Ask by HTTP, once, without following anything; None when there is no whole answer within 3 s and 64 KiB."""


class LanEther:
    """The ``Ether`` of a network interface, of this process's network namespace."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._receive: Receive | None = None
        self._sockets: list[socket.socket] = []

    def open(self, receive: Receive) -> None:
        self.close()
        self._receive = receive
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            if not self.addresses().networks:
                raise OSError(f"{self._interface} has no IPv4 address")
            self._sockets.append(self._asking())
            self._sockets.append(self._listening())
            loop = asyncio.get_running_loop()
            for sock in self._sockets:
                loop.add_reader(sock, self._read, sock)
            undo.pop_all()

    def close(self) -> None:
        for sock in self._sockets:
            if sock.fileno() >= 0:
                with contextlib.suppress(RuntimeError):  # the loop is closed already, and its readers with it
                    asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def addresses(self) -> LanAddresses:
        return lan_addresses.read(self._interface)

    def send(self, datagram: bytes, ip: str | None) -> None:
        if not self._sockets:
            raise OSError("not open")
        with contextlib.suppress(BlockingIOError):  # the queue is full: one search more or less
            self._sockets[0].sendto(datagram, (ip or GROUP, PORT))

    async def fetch(self, location: Location, *, method: str = "GET", body: bytes = b"") -> Answer | None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                received = await self._exchange(location, request(location, method=method, body=body))
        except (OSError, TimeoutError):  # a device that does not answer is none of our troubles; counted by the caller
            return None
        return parse_answer(received, body_bytes_max=BODY_BYTES_MAX)

    async def _exchange(self, location: Location, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        received = bytearray()
        with self._bound(socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BODY_BYTES_MAX)
            await loop.sock_connect(sock, (location.ip, location.port))
            await loop.sock_sendall(sock, question)
            for _turn in range(READS_MAX):
                part = await loop.sock_recv(sock, 16 * 1024)
                received += part
                if not part or len(received) > HEAD_BYTES_MAX + BODY_BYTES_MAX or is_complete(bytes(received)):
                    return bytes(received)
        raise OSError("the answer comes in too small pieces")

    def _asking(self) -> socket.socket:
        """Sends searches and gets the answers, from an own port."""
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(self._bound(socket.SOCK_DGRAM))
            group = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex(self._interface))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            sock.bind(("", 0))
            undo.pop_all()
        return sock

    def _listening(self) -> socket.socket:
        """Hears announcements. Bound to the group, so that only what was sent to it comes here."""
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(self._bound(socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a media server here may listen too
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            sock.bind((GROUP, PORT))
            index = socket.if_nametoindex(self._interface)
            group = struct.pack("=4s4si", socket.inet_aton(GROUP), bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            undo.pop_all()
        return sock

    def _bound(self, kind: socket.SocketKind) -> socket.socket:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            undo.pop_all()
        return sock

    def _read(self, sock: socket.socket) -> None:
        assert self._receive is not None
        for _turn in range(DATAGRAMS_PER_TURN):
            try:
                datagram, sender = sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:  # a refusal of an earlier search, by ICMP; nothing was read
                metrics.ssdp_datagrams.labels("error").inc()
                return
            self._receive(datagram, sender[0])
