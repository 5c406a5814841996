"""The sockets of one DUT, in its namespace: SSDP on 1900, HTTP on 8008, magic packets on 9. asyncio, nothing blocks."""

import asyncio
import fcntl
import logging
import random
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from dmpd.lab.duts.device import HTTP_PORT, MULTICAST, SSDP_PORT, WAKE_PORT, Answer, Device
from dmpd.lab.lan_tools import in_namespace

_INTERFACE: Final = "eth0"
_SIOCGIFADDR: Final = 0x8915
_SPREAD_S: Final = 0.2
"""Answers to a search of everybody come spread over this time, as the protocol wants."""
_REQUEST_BYTES_MAX: Final = 8192
_REQUEST_TIMEOUT_S: Final = 5.0
_CONTENT_LENGTH: Final = re.compile(r"\r\nContent-Length: *([0-9]{1,9})\r\n", re.IGNORECASE)

_log = logging.getLogger(__name__)


class Responder:
    """Speaks for one ``Device``. ``open`` once, then ``close`` once, both on the loop that serves it."""

    def __init__(self, device: Device, namespace: str, *, on_magic: Callable[[], None]) -> None:
        self.device = device
        self._namespace = namespace
        self._on_magic = on_magic
        self._ssdp: asyncio.DatagramTransport | None = None
        self._magic: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Bind all sockets. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        ssdp, magic, http = in_namespace(self._namespace, _sockets)
        self._ssdp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._heard), sock=ssdp)
        self._magic, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._magic_heard), sock=magic)
        self._server = await asyncio.start_server(self._serve, sock=http, limit=_REQUEST_BYTES_MAX)

    def close(self) -> None:
        for transport in (self._ssdp, self._magic):
            if transport is not None:
                transport.close()
        if self._server is not None:
            self._server.close()

    def ip(self) -> str | None:
        """The IPv4 address that the device has now."""
        assert self._ssdp is not None
        request = struct.pack("16s16x", _INTERFACE.encode())
        try:
            answer = fcntl.ioctl(self._ssdp.get_extra_info("socket").fileno(), _SIOCGIFADDR, request)
        except OSError:  # it has none
            return None
        return socket.inet_ntoa(answer[20:24])

    def announce(self, *, alive: bool) -> None:
        """Tell the LAN that the device is there, or that it goes."""
        ip = self.ip()
        if ip is not None:
            for datagram in self.device.announcements(ip, alive=alive):
                self._send(datagram, (MULTICAST, SSDP_PORT))

    def _heard(self, search: bytes, sender: tuple[str, int]) -> None:
        ip = self.ip()
        if ip is None:
            return
        delay_s = random.uniform(0, _SPREAD_S) if b"\r\nMX:" in search else 0.0  # noqa: S311 - spreads, guards nothing
        for datagram in self.device.answers(search, ip):
            asyncio.get_running_loop().call_later(delay_s, self._send, datagram, sender)

    def _magic_heard(self, datagram: bytes, _sender: tuple[str, int]) -> None:
        if self.device.is_woken_by(datagram):
            self._on_magic()

    def _send(self, datagram: bytes, to: tuple[str, int]) -> None:
        if self._ssdp is not None and not self._ssdp.is_closing():
            self._ssdp.sendto(datagram, to)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                writer.write((await self._answer(reader)).encode())
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _log.debug("%s: a request was not finished: %s", self._namespace, error)
        finally:
            writer.close()
            with suppress(OSError):  # who asked is gone
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        words = head.partition("\r\n")[0].split(" ")
        ip = self.ip()
        if len(words) != 3 or ip is None:
            return Answer("400 Bad Request")
        if self.device.asleep:
            return Answer("503 Service Unavailable")
        return self.device.page(words[0], words[1], ip, await _body(reader, head))


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    length = _CONTENT_LENGTH.search(head)
    return await reader.readexactly(min(int(length[1]), _REQUEST_BYTES_MAX)) if length is not None else b""


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._heard(data, addr)

    def error_received(self, exc: Exception) -> None:
        _log.debug("a datagram was not delivered: %s", exc)  # the cable is out


def _sockets() -> tuple[socket.socket, socket.socket, socket.socket]:
    index = socket.if_nametoindex(_INTERFACE)
    ssdp = _udp(SSDP_PORT)
    group = struct.pack("=4s4si", socket.inet_aton(MULTICAST), bytes(4), index)
    ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
    return ssdp, _udp(WAKE_PORT), socket.create_server(("", HTTP_PORT), backlog=16)


def _udp(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setblocking(False)
    found.bind(("", port))
    return found
