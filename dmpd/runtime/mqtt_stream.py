"""A TLS connection to an MQTT broker on the event loop, which paho takes for a socket.

asyncio and uvloop do TLS without blocking and hand over what came in one piece; paho would block in the handshake (5 s
were measured against a frozen broker) and ask for each byte by itself.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from dmpd.runtime import metrics
from dmpd.runtime.certificate import ends_at
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import MqttSettings

_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", 18)

_log = logging.getLogger(__name__)


class MqttUnreachableError(UnavailableError):
    """No connection: nobody listens, the handshake failed, or no answer came in time. Worth another try."""


class Stream(asyncio.Protocol):
    """One open connection. All on the loop's thread; nothing blocks; ``send`` takes every byte, never waits or fails.

    What is sent within one turn of the loop leaves in one piece at its end: one TLS record for many packets.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._inbox = bytearray()
        self._outbox = bytearray()
        self.on_data: Callable[[bytes], None] = _ignore_data
        self.on_lost: Callable[[str], None] = _ignore_loss
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is gone and nothing of it is left."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, not the class
        self._transport.pause_reading()  # until there is somebody to take what comes

    def data_received(self, data: bytes) -> None:
        self.on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        self.on_lost("the broker hung up" if exc is None else str(exc) or type(exc).__name__)

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; what was not sent yet is not sent."""
        if self._transport is not None:
            self._transport.abort()

    # --- what paho takes for a socket

    def feed(self, packet: bytes) -> None:
        """Let ``recv`` give these bytes."""
        self._inbox += packet

    def recv(self, size: int) -> bytes:
        if not self._inbox:
            raise BlockingIOError
        found = bytes(self._inbox[:size])
        del self._inbox[:size]
        return found

    def send(self, data: bytes | bytearray) -> int:
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox += data
        return len(data)

    def _flush(self) -> None:
        """What is left when the connection is gone is lost; ``on_lost`` says so in its turn."""
        if self._outbox and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._outbox))
        self._outbox.clear()

    def setblocking(self, _: object) -> None:
        """It never blocks."""

    def close(self) -> None:
        """Close as soon as what was sent is on its way."""
        self._flush()
        if self._transport is not None and not self._loop.is_closed():  # paho closes at its deletion, however late
            self._transport.close()


async def open_stream(settings: MqttSettings) -> Stream:
    """Open TCP and TLS within ``connect_timeout_s``. Nothing is read before ``resume_reading``.

    Raises:
        MqttUnreachableError: Says which file, address or step failed.
    """
    where = f"{settings.host}:{settings.port}"
    loop = asyncio.get_running_loop()
    context = await loop.run_in_executor(None, tls_context, settings)
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            plain = await _open_tcp(settings)
            stream = await secured(plain, context, settings.host)
    except TimeoutError as error:
        raise MqttUnreachableError(f"{where}: not open within {settings.connect_timeout_s:g} s") from error
    except OSError as error:  # ssl.SSLError is one too
        raise MqttUnreachableError(f"{where}: {error}") from error
    return stream


async def secured(
    plain: socket.socket, context: ssl.SSLContext, host: str, *, handshake_timeout_s: float | None = None
) -> Stream:
    """TLS on an open socket, which is the stream's from now on and gone if this fails. Raises ``OSError``."""
    stream = Stream()
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: stream, sock=plain, ssl=context, server_hostname=host, ssl_handshake_timeout=handshake_timeout_s
        )
    except asyncio.CancelledError:
        # A transport has it and says goodbye for up to 30 s. Closed under its hands, its number would go to the next
        # socket, whose connect the loop would then refuse; so have the transport end.
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_RDWR)
        stream.abort()
        raise
    except BaseException:
        plain.close()
        raise
    return stream


async def _open_tcp(settings: MqttSettings) -> socket.socket:
    """A connection to the first address of the host that takes one."""
    loop = asyncio.get_running_loop()
    failure: OSError = ConnectionError("no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM
    ):
        plain = socket.socket(family, kind, protocol)
        try:
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, settings.keepalive_s * 1500)
            await loop.sock_connect(plain, address)
        except OSError as error:
            plain.close()
            failure = error
        except BaseException:
            plain.close()
            raise
        else:
            return plain
    raise failure


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """Mutual TLS, 1.2 or later; the server's name is verified.

    Raises:
        MqttUnreachableError: A file is missing or cannot be used; names it.
    """
    for name in (settings.ca_file, settings.cert_file, settings.key_file):
        try:
            Path(name).open("rb").close()
        except OSError as error:
            raise MqttUnreachableError(f"{name}: {error.strerror}") from error
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # CPython 3.13 asks by default for the form of RFC 5280 too, which many a site's CA does not have (no key usage,
        # say): a router would lose its broker by an upgrade of Debian. What is verified is the same everywhere.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except ssl.SSLError as error:
        raise MqttUnreachableError(f"{settings.cert_file} or {settings.ca_file}: {error}") from error
    ends = ends_at(Path(settings.cert_file))
    if ends is not None:
        metrics.MQTT_CERTIFICATE_ENDS.set(ends.timestamp())
    return context


def _ignore_data(data: bytes) -> None:
    """Nobody listens yet."""


def _ignore_loss(why: str) -> None:
    """Nobody listens yet."""
