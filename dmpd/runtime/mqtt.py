"""One life of one MQTT 5 connection, on an event loop. Alone in importing paho.

paho is used as a dumb pipe: it keeps no queue of ours and never reconnects. Connect and TLS handshake block (5 s were
measured against a frozen broker), so they happen on an executor's thread. To reconnect, make a new client; whatever the
old one had in flight is the caller's to send again. Works on asyncio's own loop and on uvloop.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import MqttSettings

SESSION_TAKEN_OVER: Final = 0x8E
_MISC_INTERVAL_S: Final = 1.0
_READS_PER_TURN: Final = 64
"""Then the loop's other tasks have their turn, however fast the broker sends."""
_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", 18)

_log = logging.getLogger(__name__)


class MqttRefusedError(UnavailableError):
    """The broker answered no. ``reason_code`` is the CONNACK's."""

    def __init__(self, reason_code: int, sentence: str) -> None:
        super().__init__(reason_code, sentence)
        self.reason_code = reason_code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.sentence} (0x{self.reason_code:02x})"


class MqttUnreachableError(UnavailableError):
    """No connection: nobody listens, the handshake failed, or no answer came in time. Worth another try."""


class Will(Struct, frozen=True, kw_only=True):
    """What the broker publishes for us when the connection dies without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class Message(NamedTuple):
    """One received message; ``mid`` is valid on the connection that delivered it, and on no other."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    expiry_s: int | None = None
    properties: Sequence[tuple[str, str]] = ()
    """User properties."""
    content_type: str | None = None
    correlation_data: bytes | None = None


OnMessage = Callable[[Message], None]
OnPuback = Callable[[int, int], None]


class _Pipe(paho.Client):
    """paho over a socket that was opened elsewhere."""

    prepared: ssl.SSLSocket | None = None

    def _create_socket(self) -> Any:
        assert self.prepared is not None
        return self.prepared


class MqttClient:
    """A connected client. Made by ``connect``; all methods and callbacks on the loop's thread; nothing blocks.

    After ``closed`` is done the object is of no more use. Callbacks must not raise.
    """

    def __init__(self, pipe: _Pipe, sock: ssl.SSLSocket, *, on_message: OnMessage, on_puback: OnPuback) -> None:
        """Use ``connect``."""
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._sock = sock
        self._fd = sock.fileno()
        self._on_message = on_message
        self._on_puback = on_puback
        self._awaiting_puback: set[int] = set()
        self._subscribing: dict[int, asyncio.Future[list[int]]] = {}
        self._reading = False
        self._writing = False
        self._misc: asyncio.TimerHandle | None = None
        self._connack: asyncio.Future[tuple[int, str, bool, int]] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done with the reason when the connection has ended, for whatever cause."""
        self.close_reason_code = 0
        """The server's DISCONNECT reason code, 0 when it sent none."""
        self.session_present = False
        self.server_receive_maximum = 65_535

    @classmethod
    async def connect(
        cls,
        settings: MqttSettings,
        *,
        client_id: str,
        clean_start: bool,
        session_expiry_s: int,
        will: Will | None,
        on_message: OnMessage,
        on_puback: OnPuback,
        receive_maximum: int,
    ) -> "MqttClient":
        """Open TCP, TLS and MQTT; return after a good CONNACK. Takes at most ``connect_timeout_s`` for each half.

        Args:
            client_id: The CN of the certificate: the broker insists.
            on_message: Gets every message; it is acknowledged only by ``ack``.
            on_puback: Gets ``(mid, reason_code)`` of each of our QoS 1 publishes.

        Raises:
            MqttRefusedError: The CONNACK said no.
            MqttUnreachableError: Anything else.
        """
        sock = await _open_socket(settings)
        pipe = _Pipe(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        pipe.prepared = sock
        pipe.max_inflight_messages_set(65_535)  # the window is the caller's; paho's own would queue in silence
        pipe.max_queued_messages_set(0)
        if will is not None:
            pipe.will_set(will.topic, will.payload, will.qos, will.retain)
        client = cls(pipe, sock, on_message=on_message, on_puback=on_puback)
        try:
            await client._handshake(
                settings,
                clean_start=clean_start,
                session_expiry_s=session_expiry_s,
                receive_maximum=receive_maximum,
            )
        except BaseException:
            client.abort()
            raise
        return client

    async def subscribe(self, filters: Sequence[str], *, qos: int = 1, retain_handling: int = 1) -> list[int]:
        """Subscribe and return the SUBACK's reason code for each filter.

        ``retain_handling``: 0 = retained messages always, 1 = only for a new subscription, 2 = never.

        Raises:
            MqttUnreachableError: The connection ended meanwhile.
        """
        options = SubscribeOptions(qos=qos, retainHandling=retain_handling)
        code, mid = self._pipe.subscribe([(one, options) for one in filters])
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise MqttUnreachableError(f"subscribe: {paho.error_string(code)}")
        answer: asyncio.Future[list[int]] = self._loop.create_future()
        self._subscribing[mid] = answer
        try:
            await asyncio.wait(_either(answer, self.closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._subscribing.pop(mid, None)
        if not answer.done():
            raise MqttUnreachableError(f"closed while subscribing: {self.closed.result()}")
        return answer.result()

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, expiry_s: int | None = None
    ) -> int:
        """Hand over one message and return its mid; ``on_puback`` follows for QoS 1, or ``closed``.

        The caller keeps what is unanswered within ``server_receive_maximum``.

        Raises:
            MqttUnreachableError: The connection has ended.
        """
        if self.closed.done():
            raise MqttUnreachableError(f"closed: {self.closed.result()}")
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        info = self._pipe.publish(topic, payload, qos, retain, properties)
        if qos > 0:
            self._awaiting_puback.add(info.mid)
        return info.mid

    def ack(self, message: Message) -> None:
        """Send the PUBACK of a message that this connection delivered; after ``closed`` nothing is sent.

        On another connection the same mid may be another message: there ``message`` must not be acknowledged.
        """
        if not self.closed.done():
            self._pipe.ack(message.mid, message.qos)

    def pause_reading(self) -> None:
        """Stop reading the socket: TCP holds the broker back. Keepalive answers are not read either meanwhile."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._reading and not self.closed.done():
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)
            self._loop.call_soon(self._read_buffered)

    async def disconnect(self, *, reason_code: int = 0) -> None:
        """Send DISCONNECT and close; waits, one second at most, until it is on its way."""
        if self.closed.done():
            return
        self._pipe.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=reason_code))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.closed), 1.0)
        self.abort()

    def abort(self) -> None:
        """Close at once and without a word: the broker publishes the will."""
        self._ended("aborted")

    async def _handshake(
        self, settings: MqttSettings, *, clean_start: bool, session_expiry_s: int, receive_maximum: int
    ) -> None:
        pipe = self._pipe
        pipe.on_connect = self._connected
        pipe.on_message = self._received
        pipe.on_publish = self._published
        pipe.on_subscribe = self._subscribed
        pipe.on_disconnect = self._disconnected
        pipe.on_socket_close = self._forget_socket
        pipe.on_socket_register_write = self._register_write
        pipe.on_socket_unregister_write = self._unregister_write
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session_expiry_s
        properties.ReceiveMaximum = receive_maximum
        try:
            pipe.connect(
                settings.host, settings.port, settings.keepalive_s, clean_start=clean_start, properties=properties
            )
        except OSError as error:
            raise MqttUnreachableError(f"{settings.host}:{settings.port}: {error}") from error
        self.resume_reading()
        self._tick()
        await asyncio.wait(
            _either(self._connack, self.closed),
            timeout=settings.connect_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._connack.done():
            code, name, self.session_present, self.server_receive_maximum = self._connack.result()
            if code >= 0x80:
                raise MqttRefusedError(code, f"{settings.host}:{settings.port} refused {_text(pipe)}: {name}")
            return
        why = self.closed.result() if self.closed.done() else f"no CONNACK within {settings.connect_timeout_s:g} s"
        raise MqttUnreachableError(f"{settings.host}:{settings.port}: {why}")

    def _readable(self) -> None:
        self._pipe.loop_read()
        self._read_buffered()

    def _read_buffered(self) -> None:
        """Read what TLS has decrypted already: the selector does not know of it."""
        for _ in range(_READS_PER_TURN):
            if not self._reading or self.closed.done() or not self._pending():
                return
            self._pipe.loop_read()
        self._loop.call_soon(self._read_buffered)

    def _pending(self) -> bool:
        try:
            return self._sock.pending() > 0
        except (OSError, ValueError):  # closed meanwhile; ``closed`` says why
            return False

    def _register_write(self, *_: Any) -> None:
        if not self.closed.done():
            self._writing = True
            self._loop.add_writer(self._fd, self._pipe.loop_write)

    def _unregister_write(self, *_: Any) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _forget_socket(self, *_: Any) -> None:
        """Before paho closes it: the loop lets go first, for the number may be somebody else's at once."""
        self.pause_reading()
        self._unregister_write()

    def _tick(self) -> None:
        """Let paho send its pings and notice a link without answers."""
        self._misc = self._loop.call_later(_MISC_INTERVAL_S, self._tick)
        if self._pipe.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._ended("keepalive: no answer from the broker")

    def _connected(self, _: Any, __: Any, flags: Any, reason: ReasonCode, properties: Properties | None) -> None:
        if not self._connack.done():
            maximum = getattr(properties, "ReceiveMaximum", 65_535)
            self._connack.set_result((int(reason.value), str(reason), bool(flags.session_present), int(maximum)))

    def _received(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self._on_message(
            Message(
                topic=message.topic,
                payload=bytes(message.payload),
                qos=message.qos,
                retain=message.retain,
                dup=message.dup,
                mid=message.mid,
                expiry_s=getattr(properties, "MessageExpiryInterval", None),
                properties=getattr(properties, "UserProperty", ()),
                content_type=getattr(properties, "ContentType", None),
                correlation_data=getattr(properties, "CorrelationData", None),
            )
        )

    def _published(self, _: Any, __: Any, mid: int, reason: ReasonCode, ___: Any) -> None:
        if mid in self._awaiting_puback:
            self._awaiting_puback.discard(mid)
            self._on_puback(mid, int(reason.value))

    def _subscribed(self, _: Any, __: Any, mid: int, reasons: Sequence[ReasonCode], ___: Any) -> None:
        answer = self._subscribing.get(mid)
        if answer is not None and not answer.done():
            answer.set_result([int(reason.value) for reason in reasons])

    def _disconnected(self, _: Any, __: Any, flags: Any, reason: ReasonCode, ___: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.close_reason_code = int(reason.value)
        self._ended(f"{reason}")

    def _ended(self, why: str) -> None:
        if self.closed.done():
            return
        self.closed.set_result(why)
        if self._misc is not None:
            self._misc.cancel()
        self.pause_reading()
        self._unregister_write()
        self._pipe.on_disconnect = None
        try:
            self._sock.close()
        except OSError as error:
            _log.debug("closing an MQTT socket: %s", error)


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
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except ssl.SSLError as error:
        raise MqttUnreachableError(f"{settings.cert_file} or {settings.ca_file}: {error}") from error
    return context


async def _open_socket(settings: MqttSettings) -> ssl.SSLSocket:
    """Open TCP and TLS on a thread. If we give up, it still ends by its own timeouts, and its socket is closed."""
    opening = asyncio.get_running_loop().run_in_executor(None, _open_socket_blocking, settings)
    try:
        return await asyncio.wait_for(asyncio.shield(opening), 2 * settings.connect_timeout_s)
    except TimeoutError as error:
        opening.add_done_callback(_close_late)
        seconds = 2 * settings.connect_timeout_s
        raise MqttUnreachableError(f"{settings.host}:{settings.port}: not open within {seconds:g} s") from error
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise


def _close_late(opening: asyncio.Future[ssl.SSLSocket]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open_socket_blocking(settings: MqttSettings) -> ssl.SSLSocket:
    context = tls_context(settings)
    try:
        plain = socket.create_connection((settings.host, settings.port), settings.connect_timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, settings.keepalive_s * 1500)
            wrapped = context.wrap_socket(plain, server_hostname=settings.host)
            wrapped.setblocking(False)
        except BaseException:
            plain.close()
            raise
    except OSError as error:  # ssl.SSLError is one too
        raise MqttUnreachableError(f"{settings.host}:{settings.port}: {error}") from error
    return wrapped


def _either(*futures: asyncio.Future[Any]) -> Sequence[asyncio.Future[Any]]:
    return futures


def _text(pipe: paho.Client) -> str:
    return f"client {pipe._client_id.decode(errors='replace')!r}"  # noqa: SLF001 - paho tells it nowhere else
