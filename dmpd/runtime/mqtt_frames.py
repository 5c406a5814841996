"""The bytes of MQTT 5 that come by the thousand, cut and read here: PUBLISH in, PUBACK out. Pure.

paho reads a packet in five system calls and gives it three objects and two locks; at the rate of a bridge that is most
of its processor time. So the packets of this module never reach paho; all others are passed to it as they are.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

PUBLISH: Final = 3
_QOS_MAX: Final = 1
"""We subscribe at QoS 1, so a broker sends nothing above it."""
_LENGTH_BYTES_MAX: Final = 4

_PAYLOAD_FORMAT: Final = 0x01
_MESSAGE_EXPIRY: Final = 0x02
_CONTENT_TYPE: Final = 0x03
_RESPONSE_TOPIC: Final = 0x08
_CORRELATION_DATA: Final = 0x09
_SUBSCRIPTION_ID: Final = 0x0B
_TOPIC_ALIAS: Final = 0x23
_USER_PROPERTY: Final = 0x26


class ProtocolError(Exception):
    """What came is no MQTT 5, or what we did not ask for. The connection is of no more use."""


class Message(NamedTuple):
    """One received message; ``mid`` is valid on the connection that delivered it, and on no other."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    expiry_s: int | None = None
    properties: tuple[tuple[str, str], ...] = ()
    """User properties."""
    content_type: str | None = None
    correlation_data: bytes | None = None
    malformed: str | None = None
    """What is no UTF-8 though it should be (it reads with U+FFFD in its place); None = all is well."""


class Frames:
    """Cuts a stream of bytes into packets. Keeps the last, incomplete one; not more, whatever the broker sends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message | bytes]:
        """The packets that ``data`` completes, in order: each PUBLISH as a ``Message``, any other as its bytes.

        Raises:
            ProtocolError: The stream cannot be cut, or a PUBLISH cannot be read.
        """
        data = self._rest + data if self._rest else data
        found: list[Message | bytes] = []
        at, end = 0, len(data)
        while end - at >= 2:
            start, length = at + 2, data[at + 1]
            if length > 0x7F:
                start, length = _varint(data, at + 1, end)
                if start < 0:
                    break
            stop = start + length
            if stop > end:
                break
            first = data[at]
            found.append(_publish(first, data, start, stop) if first >> 4 == PUBLISH else data[at:stop])
            at = stop
        self._rest = data[at:]
        return found


def pubacks(mids: Iterable[int]) -> bytes:
    """The PUBACK packets of these messages, in this order, with reason 0x00."""
    return b"".join([b"\x40\x02" + mid.to_bytes(2) for mid in mids])


def publish_qos0(topic: str, payload: bytes) -> bytes:
    """A PUBLISH packet without packet identifier, properties and retain flag."""
    name = topic.encode()
    length = 2 + len(name) + 1 + len(payload)
    head = bytearray(b"\x30")
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return b"".join((head, len(name).to_bytes(2), name, b"\x00", payload))


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The variable byte integer at ``at``: where it ends and its value; ``(-1, 0)`` while ``data`` ends within it."""
    value = shift = 0
    for count in range(_LENGTH_BYTES_MAX):
        if at + count >= end:
            return -1, 0
        byte = data[at + count]
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return at + count + 1, value
        shift += 7
    raise ProtocolError("a length of more than four bytes")


def _publish(first: int, data: bytes, at: int, stop: int) -> Message:
    qos = first >> 1 & 3
    if qos > _QOS_MAX:
        raise ProtocolError(f"a message of QoS {qos}")
    mid, named = 0, at + 2
    at = named + int.from_bytes(data[at:named])
    name = data[named:at]
    if qos:
        mid = int.from_bytes(data[at : at + 2])
        at += 2
    if at >= stop or not name:
        raise ProtocolError("a PUBLISH that ends early, or without a topic")
    retain, dup = bool(first & 1), bool(first & 8)
    try:
        topic, malformed = name.decode(), None
    except UnicodeDecodeError:
        topic, malformed = name.decode(errors="replace"), "topic"
    length = data[at]
    at += 1
    if length == 0:
        return Message(topic, data[at:stop], qos, retain, dup, mid, None, (), None, None, malformed)
    if length > 0x7F:
        at, length = _varint(data, at - 1, stop)
    if at < 0 or at + length > stop:
        raise ProtocolError("properties that end behind their packet")
    found = _Properties(data[at : at + length])
    payload = data[at + length : stop]
    return Message(
        topic,
        payload,
        qos,
        retain,
        dup,
        mid,
        found.expiry_s,
        tuple(found.user),
        found.content_type,
        found.correlation_data,
        malformed or found.malformed,
    )


class _Properties:
    """The properties of one PUBLISH."""

    def __init__(self, data: bytes) -> None:
        self.expiry_s: int | None = None
        self.content_type: str | None = None
        self.correlation_data: bytes | None = None
        self.user: list[tuple[str, str]] = []
        self.malformed: str | None = None
        self._data = data
        self._at = 0
        try:
            while self._at < len(data):
                self._one()
        except (IndexError, struct.error) as error:
            raise ProtocolError("properties that end early") from error

    def _one(self) -> None:
        kind = self._data[self._at]
        self._at += 1
        if kind == _USER_PROPERTY:
            self.user.append((self._text("user property"), self._text("user property")))
        elif kind == _MESSAGE_EXPIRY:
            (self.expiry_s,) = struct.unpack_from(">I", self._data, self._at)
            self._at += 4
        elif kind == _CONTENT_TYPE:
            self.content_type = self._text("content type")
        elif kind == _CORRELATION_DATA:
            self.correlation_data = self._binary()
        elif kind == _RESPONSE_TOPIC:
            self._binary()  # of no meaning here: answers go by the topic that the request came on
        elif kind == _PAYLOAD_FORMAT:
            self._at += 1
        elif kind == _SUBSCRIPTION_ID:
            self._at, _ = _varint(self._data, self._at, len(self._data))
            if self._at < 0:
                raise IndexError
        else:
            what = "a topic alias, though we allow none" if kind == _TOPIC_ALIAS else f"property 0x{kind:02x}"
            raise ProtocolError(f"a PUBLISH with {what}")

    def _binary(self) -> bytes:
        (length,) = struct.unpack_from(">H", self._data, self._at)
        start = self._at + 2
        self._at = start + length
        if self._at > len(self._data):
            raise IndexError
        return self._data[start : self._at]

    def _text(self, what: str) -> str:
        raw = self._binary()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.malformed = what
            return raw.decode(errors="replace")
