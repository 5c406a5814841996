"""Makes the kernel ask a device whether it is there: by sending it one datagram, for which any user may."""

import contextlib
import ipaddress
import logging
import socket
from typing import Final

from dmpd.local_registry.sources.metrics import pokes

_DISCARD_PORT: Final = 9
_log = logging.getLogger(__name__)


class Poker:
    """Sends datagrams over ``interface`` alone, whatever the routes say. Never blocks, never raises."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._sockets: dict[int, socket.socket] = {}

    def poke(self, ip: str) -> None:
        """Send one empty datagram to the discard port of ``ip``; whether it went is counted only.

        The kernel then asks for the MAC anew if it is not sure of it, and tells the answer, or its lack, as a
        neighbour event: after 5 to 8 seconds when the address is STALE, not at all when it is REACHABLE.
        """
        address = ipaddress.ip_address(ip)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            self._socket(family).sendto(b"", self._target(address))
        except OSError as error:
            pokes.labels("failed").inc()
            _log.debug("poke of %s: %s", ip, error)
            # The interface may have been made anew, and the socket be bound to one that is gone.
            self._close(family)
        else:
            pokes.labels("sent").inc()

    def close(self) -> None:
        """Release the sockets; the next poke opens new ones."""
        for family in list(self._sockets):
            self._close(family)

    def _target(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[str | int, ...]:
        if isinstance(address, ipaddress.IPv4Address):
            return str(address), _DISCARD_PORT
        scope = socket.if_nametoindex(self._interface) if address.is_link_local else 0
        return str(address), _DISCARD_PORT, 0, scope

    def _socket(self, family: int) -> socket.socket:
        found = self._sockets.get(family)
        if found is None:
            found = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(found.close)
                # Needs no privilege since Linux 5.7.
                found.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
                cleanup.pop_all()
            self._sockets[family] = found
        return found

    def _close(self, family: int) -> None:
        found = self._sockets.pop(family, None)
        if found is not None:
            found.close()
