"""A MQTT 5 client of which one process holds thousands, each with a certificate of its own.

TCP, TLS and MQTT are opened by the event loop, none of them blocks it, and each is timed by itself. No object of
paho's, no timer and no task stands behind a client: 60 KB a connection with TLS, nearly all of it OpenSSL's.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from dmpd.runtime import mqtt_packets as packets
from dmpd.runtime.mqtt_dial import Address, Dial
from dmpd.runtime.mqtt_frames import Frames, Message, ProtocolError, pubacks
from dmpd.runtime.mqtt_stream import MqttUnreachableError, Stream

_MIDS: Final = 0xFFFF


class Opened(Struct, frozen=True):
    """How long each step took, seconds; and what the broker said."""

    tcp_s: float
    tls_s: float
    connack_s: float
    syn_retries: int
    anew: int
    """How often it began anew, dropped from the broker's queue; ``tcp_s`` has the time of that."""
    code: int
    session_present: bool


def client_context(ca: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Mutual TLS, 1.2 or later, the server's name verified; ``ca`` is PEM text. About 1 ms of work.

    Raises:
        OSError: A file cannot be read, or is no certificate or key (``ssl.SSLError``); names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(cert_file, key_file)
    return context


class MassClient:
    """One connection; ``open`` once. Callbacks run on the loop, must not raise, and need not exist before ``open``."""

    __slots__ = (
        "_awaited",
        "_frames",
        "_mid",
        "_stream",
        "_waiting",
        "closed",
        "in_flight",
        "name",
        "on_closed",
        "on_message",
        "on_puback",
        "sent_at_s",
    )

    def __init__(
        self,
        name: str,
        *,
        on_message: Callable[[Message], None],
        on_puback: Callable[[int, int], None],
        on_closed: Callable[[str], None],
    ) -> None:
        """``on_puback`` gets the key that was given to ``publish``; ``on_closed`` why the connection ended, once."""
        self.name = name
        self.on_message = on_message
        self.on_puback = on_puback
        self.on_closed = on_closed
        self.closed: str | None = "not open"
        self.sent_at_s = 0.0
        """When anything was sent last."""
        self.in_flight: dict[int, int] = {}
        """Keys of the publishes without a PUBACK, by mid."""
        self._stream: Stream | None = None
        self._frames = Frames()
        self._mid = 0
        self._awaited = 0
        self._waiting: asyncio.Future[bytes] | None = None

    async def open(
        self,
        address: Address,
        context: ssl.SSLContext,
        *,
        clean_start: bool,
        timeout_s: float,
        keepalive_s: int = 60,
        session_expiry_s: int = 0,
    ) -> Opened:
        """Connect, and return with whatever the CONNACK said; its code may be a refusal, and then it is closed.

        Raises:
            MqttUnreachableError: There was no CONNACK within ``timeout_s``; says at which step and why.
        """
        dial = Dial(address, context)
        try:
            async with asyncio.timeout(timeout_s):
                stream = await dial.open()
                secure_s = time.monotonic()
                dial.step = "CONNACK"
                self._begin(stream)
                self._write(
                    packets.connect(
                        self.name,
                        clean_start=clean_start,
                        keepalive_s=keepalive_s,
                        session_expiry_s=session_expiry_s,
                    )
                )
                connack = packets.read_connack(await self._answer(packets.CONNACK))
        except TimeoutError as error:
            self.abort()
            anew = f", begun anew {dial.anew} times" if dial.anew else ""
            raise MqttUnreachableError(f"{dial.step}: nothing within {timeout_s:g} s{anew}") from error
        except (OSError, ProtocolError) as error:
            self.abort()
            raise MqttUnreachableError(f"{dial.step}: {error}") from error
        connack_s = time.monotonic() - secure_s
        if connack.code >= 0x80:
            self.abort()
        return Opened(
            dial.tcp_s,
            dial.tls_s,
            connack_s,
            dial.syn_retries,
            dial.anew,
            connack.code,
            connack.session_present,
        )

    async def subscribe(self, filters: Sequence[str], *, retained: bool = False) -> list[int]:
        """Reason code of each filter. One subscription at a time. Raises ``ConnectionError``: it ended meanwhile."""
        self._write(packets.subscribe(self._next_mid(), filters, retain_handling=0 if retained else 2))
        return packets.read_suback(await self._answer(packets.SUBACK))[1]

    async def ping(self) -> None:
        """Return when the broker has answered, and so has sent what it had. Raises ``ConnectionError``."""
        self._write(packets.PINGREQ)
        await self._answer(packets.PINGRESP)

    def publish(self, topic: str, payload: bytes, key: int) -> None:
        """Send at QoS 1; ``on_puback(key, code)`` follows, or ``on_closed``. Raises ``ConnectionError``: it is closed.

        Does not block and keeps no queue: how many may be in flight is the caller's.
        """
        mid = self._next_mid()
        self._write(packets.publish(mid, topic, payload))
        self.in_flight[mid] = key

    def keep_alive(self, now_s: float, idle_s: float) -> None:
        """Send a PINGREQ if nothing was sent for ``idle_s``."""
        if self.closed is None and now_s - self.sent_at_s >= idle_s:
            self._write(packets.PINGREQ)

    def leave(self) -> None:
        """DISCONNECT and close; ``on_closed`` is not called."""
        if self.closed is None and self._stream is not None:
            self._write(packets.GOODBYE)
            self._end("left", tell=False)
            self._stream.close()

    def abort(self) -> None:
        """Close without a word; ``on_closed`` is not called."""
        self._end("aborted", tell=False)
        if self._stream is not None:
            self._stream.abort()

    def _begin(self, stream: Stream) -> None:
        self._stream = stream
        self.closed = None
        stream.on_data = self._data
        stream.on_lost = self._lost
        stream.resume_reading()

    def _write(self, data: bytes) -> None:
        if self.closed is not None or self._stream is None:
            raise ConnectionError(f"closed: {self.closed}")
        self.sent_at_s = time.monotonic()
        self._stream.send(data)

    async def _answer(self, kind: int) -> bytes:
        if self.closed is not None:
            raise ConnectionError(self.closed)
        assert self._waiting is None, "one question at a time"
        self._awaited = kind
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting
        finally:
            self._waiting = None
            self._awaited = 0

    def _data(self, data: bytes) -> None:
        try:
            for packet in self._frames.feed(data):
                self._take(packet)
        except ProtocolError as error:
            self._end(f"protocol error: {error}", tell=True)
            if self._stream is not None:
                self._stream.abort()

    def _take(self, packet: Message | bytes) -> None:
        if self.closed is not None:
            return
        if isinstance(packet, Message):
            if packet.qos and self._stream is not None:
                self._stream.send(pubacks((packet.mid,)))
            self.on_message(packet)
            return
        kind = packets.kind_of(packet)
        if kind == packets.PUBACK:
            mid, code = packets.read_puback(packet)
            key = self.in_flight.pop(mid, None)
            if key is not None:
                self.on_puback(key, code)
        elif kind == self._awaited and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(packet)
        elif kind == packets.DISCONNECT:
            self._end(f"the broker said goodbye: 0x{packets.read_disconnect(packet):02x}", tell=True)

    def _lost(self, why: str) -> None:
        self._end(why, tell=True)

    def _end(self, why: str, *, tell: bool) -> None:
        if self.closed is not None:
            return
        self.closed = why
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_exception(ConnectionError(why))
        elif tell:
            self.on_closed(why)

    def _next_mid(self) -> int:
        for _ in range(_MIDS):
            self._mid = self._mid % _MIDS + 1
            if self._mid not in self.in_flight:
                return self._mid
        raise ConnectionError("65,535 publishes in flight")
