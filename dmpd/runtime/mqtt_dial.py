"""Opens TCP and TLS to a broker that a crowd wants to reach at once. On the event loop; nothing blocks.

A broker takes new connections from a short queue (Mosquitto: 100). A client whom its kernel drops there has a
connection that is open at the client's end alone: what it sends is sent again after 0.2, 0.4, 0.8 s and so on, and the
unluckiest of 3,000 waited for the seventh or eighth time, 13 to 26 s. Their own kernel knows: nothing of what was sent
is acknowledged. Who waits in the queue, or for the broker's next turn, is acknowledged, and would only lose its place.
"""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import time
from typing import Final

from msgspec import Struct

from dmpd.runtime.mqtt_stream import MqttUnreachableError, Stream, secured

_TCP_INFO_RETRANSMITS: Final = 2
_TCP_INFO_TOTAL_RETRANS: Final = 100
"""Where ``struct tcp_info`` of Linux has ``tcpi_retransmits``, how often in a row the oldest unacknowledged segment was
sent again, and ``tcpi_total_retrans``, which counts SYNs too."""
_TCP_INFO_BYTES: Final = _TCP_INFO_TOTAL_RETRANS + 4
_RESENDS_MAX: Final = 5
"""6 s after the first sending; the next two would follow 6 and 19 s later."""
_SYN_S: Final = 8.0
"""SYNs follow after 1, 3, 7 and 15 s."""
_LOOK_S: Final = 0.5
_PAUSE_S: Final = 2.0
"""At most, before beginning anew: those who came together shall not come together again."""
_FOREVER_S: Final = 3600.0
"""How long a handshake may take is the caller's to say; asyncio has an opinion of its own, 60 s."""


class Address(Struct, frozen=True):
    """Of the broker: its name, by which its certificate is checked, and where that is."""

    host: str
    port: int
    family: int
    place: tuple[str, int]


async def resolve(host: str, port: int) -> Address:
    """Look the broker up once for all. Raises ``MqttUnreachableError``."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise MqttUnreachableError(f"{host}:{port}: {error}") from error
    family, _, _, _, place = found[0]
    return Address(host, port, int(family), (str(place[0]), int(place[1])))


class Dial:
    """``open`` once, within a time that the caller sets."""

    def __init__(self, address: Address, context: ssl.SSLContext) -> None:
        self._address = address
        self._context = context
        self.step = "TCP"
        """Where it is, or failed."""
        self.tcp_s = 0.0
        """Until the TCP connection stood that is used, with all that was tried before it."""
        self.tls_s = 0.0
        self.syn_retries = 0
        self.anew = 0
        """How often it began anew."""

    async def open(self) -> Stream:
        """TCP and TLS, tried until it works or somebody says no. Raises ``OSError``."""
        began_s = time.monotonic()
        while True:
            try:
                self.step = "TCP"
                plain = await _tcp(self._address)
                open_s = time.monotonic()
                self.syn_retries = _tcp_info(plain)[1]
                self.step = "TLS"
                stream = await _unless_dropped(plain, self._context, self._address.host)
            except _DroppedError:
                self.anew += 1
                await asyncio.sleep(_PAUSE_S * random.random())  # noqa: S311 - jitter
            else:
                self.tcp_s, self.tls_s = open_s - began_s, time.monotonic() - open_s
                return stream


class _DroppedError(Exception):
    """The broker's kernel does not know of this connection."""


async def _tcp(address: Address) -> socket.socket:
    plain = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(plain, address.place), _SYN_S)
    except TimeoutError as error:
        plain.close()
        raise _DroppedError from error
    except BaseException:
        plain.close()
        raise
    return plain


async def _unless_dropped(plain: socket.socket, context: ssl.SSLContext, host: str) -> Stream:
    """TLS on ``plain``. Raises ``_DroppedError``, ``OSError``; then nothing of it is left."""
    handshake = asyncio.ensure_future(secured(plain, context, host, handshake_timeout_s=_FOREVER_S))
    try:
        while not (await asyncio.wait({handshake}, timeout=_LOOK_S))[0]:
            if _tcp_info(plain)[0] >= _RESENDS_MAX:
                raise _DroppedError
        return handshake.result()
    finally:
        if not handshake.done():
            handshake.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await handshake


def _tcp_info(plain: socket.socket) -> tuple[int, int]:
    """Unacknowledged resendings in a row now, and all so far with those of the SYN; 0 of a socket that is closed."""
    try:
        info = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return 0, 0  # whoever closed it says why
    if len(info) < _TCP_INFO_BYTES:
        return 0, 0
    return info[_TCP_INFO_RETRANSMITS], int(struct.unpack_from("=I", info, _TCP_INFO_TOTAL_RETRANS)[0])
