"""One life of one MQTT 5 connection, on an event loop. Alone in importing paho.

paho is used as a dumb pipe: it keeps no queue of ours and never reconnects. It sees no socket (``mqtt_stream``) and
none of the messages that come in (``mqtt_frames``): it speaks the rest of the protocol. To reconnect, make a new
client; whatever the old one had in flight is the caller's to send again. Works on asyncio's own loop and on uvloop.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.mqtt_frames import Frames, Message, ProtocolError, pubacks, publish_qos0
from dmpd.runtime.mqtt_stream import MqttUnreachableError, Stream, open_stream
from dmpd.runtime.settings import MqttSettings

__all__ = [
    "SESSION_TAKEN_OVER",
    "Message",
    "MqttClient",
    "MqttRefusedError",
    "MqttUnreachableError",
    "OnMessage",
    "OnPuback",
    "Will",
]

SESSION_TAKEN_OVER: Final = 0x8E
_MISC_INTERVAL_S: Final = 1.0
_GOODBYE_S: Final = 1.0

_log = logging.getLogger(__name__)


class MqttRefusedError(UnavailableError):
    """The broker answered no. ``reason_code`` is the CONNACK's."""

    def __init__(self, reason_code: int, sentence: str) -> None:
        super().__init__(reason_code, sentence)
        self.reason_code = reason_code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.sentence} (0x{self.reason_code:02x})"


class Will(Struct, frozen=True, kw_only=True):
    """What the broker publishes for us when the connection dies without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


OnMessage = Callable[[Message], None]
OnPuback = Callable[[int, int], None]


class _Pipe(paho.Client):
    """paho over a connection that was opened elsewhere."""

    prepared: Stream | None = None

    def _create_socket(self) -> Any:
        assert self.prepared is not None
        return self.prepared


class MqttClient:
    """A connected client. Made by ``connect``; all methods and callbacks on the loop's thread; nothing blocks.

    After ``closed`` is done the object is of no more use. Callbacks must not raise.
    """

    def __init__(self, pipe: _Pipe, stream: Stream, *, on_message: OnMessage, on_puback: OnPuback) -> None:
        """Use ``connect``."""
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._stream = stream
        self._frames = Frames()
        self._held: deque[Message | bytes] = deque()
        self._on_message = on_message
        self._on_puback = on_puback
        self._awaiting_puback: set[int] = set()
        self._subscribing: dict[int, asyncio.Future[list[int]]] = {}
        self._reading = False
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
        stream = await open_stream(settings)
        pipe = _Pipe(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        pipe.prepared = stream
        pipe.max_inflight_messages_set(65_535)  # the window is the caller's; paho's own would queue in silence
        pipe.max_queued_messages_set(0)
        if will is not None:
            pipe.will_set(will.topic, will.payload, will.qos, will.retain)
        client = cls(pipe, stream, on_message=on_message, on_puback=on_puback)
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

    async def subscribe(
        self, filters: Sequence[str], *, qos: int = 1, retain_handling: int = 1, retain_as_published: bool = False
    ) -> list[int]:
        """Subscribe and return the SUBACK's reason code for each filter.

        ``retain_handling``: 0 = retained messages always, 1 = only for a new subscription, 2 = never.
        ``retain_as_published``: a message that was published as retained says so also when it comes live.

        Raises:
            MqttUnreachableError: The connection ended meanwhile.
        """
        options = SubscribeOptions(qos=qos, retainAsPublished=retain_as_published, retainHandling=retain_handling)
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
        """Hand over one message and return its mid (0 at QoS 0); ``on_puback`` follows for QoS 1, or ``closed``.

        The caller keeps what is unanswered within ``server_receive_maximum``.

        Raises:
            MqttUnreachableError: The connection has ended.
        """
        if self.closed.done():
            raise MqttUnreachableError(f"closed: {self.closed.result()}")
        if qos == 0 and not retain and expiry_s is None:
            self._stream.send(publish_qos0(topic, payload))
            return 0
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
        self.ack_all((message,))

    def ack_all(self, messages: Sequence[Message]) -> None:
        """``ack`` for many at once, in this order; those of QoS 0 want none."""
        if not self.closed.done():
            self._stream.send(pubacks(message.mid for message in messages if message.qos))

    def pause_reading(self) -> None:
        """Stop reading: TCP holds the broker back. Keepalive answers are not read either meanwhile."""
        if self._reading:
            self._reading = False
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self.closed.done():
            self._reading = True
            self._stream.resume_reading()
            self._loop.call_soon(self._take, ())

    async def disconnect(self, *, reason_code: int = 0) -> None:
        """Send DISCONNECT, if it is not closed yet, and close; waits, one second at most, until nothing is left."""
        if not self.closed.done():
            self._pipe.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=reason_code))
            self._ended("Normal disconnection")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._stream.lost), _GOODBYE_S)
        self._stream.abort()

    def abort(self) -> None:
        """Close at once and without a word: the broker publishes the will."""
        self._ended("aborted")
        self._stream.abort()

    async def _handshake(
        self, settings: MqttSettings, *, clean_start: bool, session_expiry_s: int, receive_maximum: int
    ) -> None:
        pipe = self._pipe
        pipe.on_connect = self._connected
        pipe.on_publish = self._published
        pipe.on_subscribe = self._subscribed
        pipe.on_disconnect = self._disconnected
        self._stream.on_data = self._data
        self._stream.on_lost = self._ended
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

    def _data(self, data: bytes) -> None:
        try:
            packets = self._frames.feed(data)
        except ProtocolError as error:
            _log.error("the MQTT broker sent %s", error)
            self._ended(f"protocol error: {error}")
            self._stream.abort()
            return
        self._take(packets)

    def _take(self, packets: Sequence[Message | bytes]) -> None:
        """Hand ``packets`` on, behind those that a pause held back; a pause holds the rest back again."""
        held = self._held
        if held:
            held.extend(packets)
            packets = []
            while held and self._reading:
                self._one(held.popleft())
            return
        for place, packet in enumerate(packets):
            if not self._reading:
                held.extend(packets[place:])
                return
            self._one(packet)

    def _one(self, packet: Message | bytes) -> None:
        if self.closed.done():
            return
        if isinstance(packet, Message):
            self._on_message(packet)
            return
        self._stream.feed(packet)
        self._pipe.loop_read()
        if self._pipe.want_write():  # what a callback of paho's asked for: paho does not write inside of one
            self._pipe.loop_write()

    def _tick(self) -> None:
        """Let paho send its pings and notice a link without answers."""
        self._misc = self._loop.call_later(_MISC_INTERVAL_S, self._tick)
        if self._pipe.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._ended("keepalive: no answer from the broker")
            self._stream.abort()

    def _connected(self, _: Any, __: Any, flags: Any, reason: ReasonCode, properties: Properties | None) -> None:
        if not self._connack.done():
            maximum = getattr(properties, "ReceiveMaximum", 65_535)
            self._connack.set_result((int(reason.value), str(reason), bool(flags.session_present), int(maximum)))

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
            self._stream.abort()  # it has said the last word: a goodbye of ours would be waited for
        self._ended(f"{reason}")

    def _ended(self, why: str) -> None:
        """Once; afterwards nothing is handed on. Who ends it closes the stream, now or when it has sent all."""
        if self.closed.done():
            return
        self.closed.set_result(why)
        if self._misc is not None:
            self._misc.cancel()
        self._held.clear()
        self._pipe.on_disconnect = None


def _either(*futures: asyncio.Future[Any]) -> Sequence[asyncio.Future[Any]]:
    return futures


def _text(pipe: paho.Client) -> str:
    return f"client {pipe._client_id.decode(errors='replace')!r}"  # noqa: SLF001 - paho tells it nowhere else
