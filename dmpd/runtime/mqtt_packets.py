"""The packets of MQTT 5 that a client of thousands sends and gets, beside those of ``mqtt_frames``. Pure.

No more than such a client needs: QoS 0 and 1, no topic alias, no will, no user name (the certificate is the name).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dmpd.runtime.mqtt_frames import ProtocolError

CONNACK: Final = 2
PUBACK: Final = 4
SUBACK: Final = 9
PINGRESP: Final = 13
DISCONNECT: Final = 14

PINGREQ: Final = b"\xc0\x00"
GOODBYE: Final = b"\xe0\x00"
"""DISCONNECT with reason 0."""

_SESSION_EXPIRY: Final = 0x11
_RECEIVE_MAXIMUM: Final = 0x21
_LENGTHS: Final = {
    0x11: 4,
    0x13: 2,
    0x21: 2,
    0x22: 2,
    0x24: 1,
    0x25: 1,
    0x27: 4,
    0x28: 1,
    0x29: 1,
    0x2A: 1,
}
"""Bytes of the properties of fixed length that a CONNACK may have."""
_TEXTS: Final = frozenset({0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})
_PAIR: Final = 0x26


class Connack(NamedTuple):
    """The broker's answer to CONNECT."""

    code: int
    session_present: bool
    receive_maximum: int


def connect(client_id: str, *, clean_start: bool, keepalive_s: int, session_expiry_s: int = 0) -> bytes:
    """CONNECT; ``session_expiry_s`` 0 = the session ends with the connection."""
    properties = b"" if not session_expiry_s else bytes((_SESSION_EXPIRY,)) + session_expiry_s.to_bytes(4)
    flags = 0x02 if clean_start else 0x00
    body = b"\x00\x04MQTT\x05" + bytes((flags,)) + keepalive_s.to_bytes(2)
    return _packet(0x10, body + _varint(len(properties)) + properties + _text(client_id))


def subscribe(mid: int, filters: Sequence[str], *, retain_handling: int, qos: int = 1) -> bytes:
    """``retain_handling``: 0 = retained messages are sent, 2 = they are not."""
    options = bytes((qos | retain_handling << 4,))
    return _packet(0x82, mid.to_bytes(2) + b"\x00" + b"".join(_text(one) + options for one in filters))


def publish(mid: int, topic: str, payload: bytes) -> bytes:
    """PUBLISH of QoS 1, not retained."""
    return _packet(0x32, _text(topic) + mid.to_bytes(2) + b"\x00" + payload)


def kind_of(packet: bytes) -> int:
    return packet[0] >> 4


def read_connack(packet: bytes) -> Connack:
    """Raises ``ProtocolError`` for what is none."""
    at = _body(packet)
    if len(packet) < at + 2:
        raise ProtocolError("a CONNACK that ends early")
    maximum = 65_535
    for name, value in _properties(packet, at + 2):
        if name == _RECEIVE_MAXIMUM:
            maximum = int.from_bytes(value)
    return Connack(packet[at + 1], bool(packet[at] & 1), maximum)


def read_puback(packet: bytes) -> tuple[int, int]:
    """``(mid, reason code)``."""
    at = _body(packet)
    if len(packet) < at + 2:
        raise ProtocolError("a PUBACK that ends early")
    return int.from_bytes(packet[at : at + 2]), packet[at + 2] if len(packet) > at + 2 else 0


def read_suback(packet: bytes) -> tuple[int, list[int]]:
    """``(mid, reason code of each filter)``."""
    at = _body(packet)
    length, start = _length(packet, at + 2)
    return int.from_bytes(packet[at : at + 2]), list(packet[start + length :])


def read_disconnect(packet: bytes) -> int:
    """The reason code."""
    at = _body(packet)
    return packet[at] if len(packet) > at else 0


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2) + encoded


def _body(packet: bytes) -> int:
    """Where the body begins: behind the length, which ``Frames`` has checked."""
    at = 1
    while packet[at] > 0x7F:
        at += 1
    return at + 1


def _length(packet: bytes, at: int) -> tuple[int, int]:
    """A length of properties, and where they begin."""
    value = shift = 0
    while at < len(packet):
        value |= (packet[at] & 0x7F) << shift
        at += 1
        if packet[at - 1] <= 0x7F:
            return value, at
        shift += 7
    raise ProtocolError("properties that end early")


def _properties(packet: bytes, at: int) -> list[tuple[int, bytes]]:
    if at >= len(packet):
        return []
    length, at = _length(packet, at)
    stop = at + length
    found = []
    while at < stop:
        name = packet[at]
        at += 1
        if name in _LENGTHS:
            size = _LENGTHS[name]
        elif name in _TEXTS:
            size = 2 + int.from_bytes(packet[at : at + 2])
        elif name == _PAIR:
            size = 2 + int.from_bytes(packet[at : at + 2])
            size += 2 + int.from_bytes(packet[at + size : at + size + 2])
        else:
            raise ProtocolError(f"property 0x{name:02x}")
        found.append((name, packet[at : at + size]))
        at += size
    return found
