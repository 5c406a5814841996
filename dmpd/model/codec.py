"""JSON to messages and back, with every refusal that the database or a reader would otherwise discover later.

The same code runs on the edge before sending and in the cloud on receipt, so what passes here is stored as it is by
PostgreSQL and CockroachDB alike (``NUL`` and lone surrogates are stored by one and refused by the other).
"""

import json
import re
from typing import Final, Literal, NoReturn

import msgspec

from dmpd.model import limits
from dmpd.model.messages import (
    Change,
    Checkpoint,
    Durable,
    Event,
    InfoMessage,
    Message,
    Request,
    Response,
    Roster,
    Status,
)
from dmpd.model.record import Attributes, Interfaces
from dmpd.model.topics import RAE_SESSION, InvalidTopicError, Topic, parse_topic

InvalidReason = Literal[
    "no_key", "bad_key", "empty", "too_large", "malformed", "text", "range", "unsupported", "mismatch"
]


class InvalidMessageError(ValueError):
    """A message that can never be used. ``reason`` is a stable word, ``detail`` a sentence for people."""

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: InvalidReason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


_encoder = msgspec.json.Encoder()
_info_decoder: Final = msgspec.json.Decoder(InfoMessage)
_decoders: Final[dict[str, msgspec.json.Decoder[Message]]] = {
    "info": _info_decoder,
    "ack": msgspec.json.Decoder(Durable),
    "cmd": msgspec.json.Decoder(Request),
    "rsp": msgspec.json.Decoder(Response),
}
_KINDS: Final = {
    "info": frozenset({"change", "checkpoint", "closed", "event", "status", "roster"}),
    "ack": frozenset({"durable"}),
    "cmd": frozenset({"request"}),
    "rsp": frozenset({"response"}),
}

# A cheap scan that lets nearly every payload pass; a hit only means "look closely".
_SUSPICIOUS = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|[0-9]{18}|[:,\[\s]-?[0-9.]+[eE]\+?[0-9]{3}")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class _Head(msgspec.Struct):
    v: msgspec.Raw = msgspec.Raw(b"")
    kind: msgspec.Raw = msgspec.Raw(b"")


_head_decoder = msgspec.json.Decoder(_Head)


def encode(message: Message) -> bytes:
    """JSON of ``message``, compact.

    Raises:
        InvalidMessageError: It would be refused on receipt: sizes, text or ranges out of bounds.
    """
    try:
        payload = _encoder.encode(message)
    except UnicodeEncodeError as error:  # a lone surrogate in a text field
        raise InvalidMessageError("text", "lone surrogate") from error
    decode(payload, Topic(message.rae, message.session, _topic_kind(message)))
    return payload


def decode_record(key: bytes | None, value: bytes | None) -> tuple[Topic, Message]:
    """Decode one Kafka record: its key is the topic.

    Raises:
        InvalidMessageError: See ``decode``; also ``no_key`` and ``bad_key``.
    """
    if not key:
        raise InvalidMessageError("no_key", "a record needs its MQTT topic as key")
    try:
        topic = parse_topic(key.decode("ascii"))
    except (UnicodeDecodeError, InvalidTopicError) as error:
        raise InvalidMessageError("bad_key", str(error)) from error
    if not value:
        raise InvalidMessageError("empty", "no payload")
    return topic, decode(value, topic)


def decode(payload: bytes, topic: Topic) -> Message:
    """Decode and check one payload that came on ``topic``. Pure; a few microseconds.

    Raises:
        InvalidMessageError: The payload is refused; nothing of it may be used.
    """
    if not payload:
        raise InvalidMessageError("empty", "no payload")
    if len(payload) > limits.PAYLOAD_BYTES_MAX:
        raise InvalidMessageError("too_large", f"{len(payload)} bytes, at most {limits.PAYLOAD_BYTES_MAX}")
    _check_text(payload)
    try:
        message = _decoders[topic.kind].decode(payload)
    except msgspec.ValidationError as error:
        _refuse(payload, topic, error)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidMessageError("malformed", str(error) or type(error).__name__) from error
    if message.rae != topic.rae or message.session != topic.session:
        raise InvalidMessageError("mismatch", "rae or session differ from the topic's")
    _check_sizes(message)
    return message


def _refuse(payload: bytes, topic: Topic, error: msgspec.ValidationError) -> NoReturn:
    """Tell an unknown version or kind (replayable by a later dmpd) from a wrong message."""
    try:
        head = _head_decoder.decode(payload)
        version, kind = (msgspec.json.decode(raw) if bytes(raw) else None for raw in (head.v, head.kind))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidMessageError("malformed", str(error)) from error
    if isinstance(version, int) and version != 1:
        raise InvalidMessageError("unsupported", f"v {version}") from error
    if isinstance(kind, str) and kind not in _KINDS[topic.kind]:
        raise InvalidMessageError("unsupported", f"kind {kind!r:.64} on a topic for {topic.kind}") from error
    raise InvalidMessageError("malformed", str(error)) from error


def _check_text(payload: bytes) -> None:
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidMessageError("text", "not UTF-8") from error
    if _SUSPICIOUS.search(payload) or payload.count(b"{") + payload.count(b"[") > limits.NESTING_MAX:
        _check_closely(text)


def _check_closely(text: str) -> None:
    """Parse in full and look at every value; slow, so only for payloads that the scan found suspicious."""
    try:
        value = json.loads(text, parse_int=_checked_int, parse_float=_checked_float, parse_constant=_refused_constant)
        _check_value(value, 1)
    except InvalidMessageError:
        raise
    except RecursionError as error:
        raise InvalidMessageError("malformed", f"nested deeper than {limits.NESTING_MAX}") from error
    except ValueError as error:
        raise InvalidMessageError("malformed", str(error)) from error


def _check_value(value: object, depth: int) -> None:
    if depth > limits.NESTING_MAX:
        raise InvalidMessageError("malformed", f"nested deeper than {limits.NESTING_MAX}")
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidMessageError("text", "NUL character")
        if _LONE_SURROGATE.search(value):
            raise InvalidMessageError("text", "lone surrogate")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_value(name, depth)
            _check_value(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, depth + 1)


def _checked_int(digits: str) -> int:
    if len(digits) > 20 or not -limits.INT64_MAX - 1 <= (number := int(digits)) <= limits.INT64_MAX:
        raise InvalidMessageError("range", "integer beyond 64 bits")
    return number


def _checked_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise InvalidMessageError("range", "number beyond a double")
    return number


def _refused_constant(name: str) -> NoReturn:
    raise InvalidMessageError("range", f"{name} is no JSON number")


def _check_sizes(message: Message) -> None:
    if isinstance(message, Change):
        if message.patch.attributes is not msgspec.UNSET:
            _check_attributes(message.patch.attributes)
        if message.patch.interfaces is not msgspec.UNSET:
            _check_addresses(message.patch.interfaces)
        for key in message.unset:
            _check_key(key)
    elif isinstance(message, Checkpoint):
        _check_attributes(message.record.attributes)
        _check_addresses(message.record.interfaces)
    elif isinstance(message, Status | Roster):
        if message.session != RAE_SESSION:
            raise InvalidMessageError("mismatch", "status and roster belong on the RAE's own topic")
        return
    if message.session == RAE_SESSION and not isinstance(message, Event | Durable | Request | Response):
        raise InvalidMessageError("mismatch", "a device message on the RAE's own topic")


def _check_attributes(attributes: Attributes) -> None:
    for key, value in attributes.items():
        _check_key(key)
        if len(memoryview(value)) > limits.ATTRIBUTE_VALUE_BYTES_MAX:
            raise InvalidMessageError(
                "too_large", f"attribute {key!r:.64}: over {limits.ATTRIBUTE_VALUE_BYTES_MAX} bytes"
            )


def _check_key(key: str) -> None:
    if not 1 <= len(key.encode()) <= limits.ATTRIBUTE_KEY_BYTES_MAX:
        raise InvalidMessageError("too_large", f"attribute name: expected 1 to {limits.ATTRIBUTE_KEY_BYTES_MAX} bytes")


def _check_addresses(interfaces: Interfaces) -> None:
    if sum((interface.ip4 is not None) + len(interface.ip6) for interface in interfaces) > limits.ADDRESSES_MAX:
        raise InvalidMessageError("too_large", f"more than {limits.ADDRESSES_MAX} addresses")


def _topic_kind(message: Message) -> Literal["info", "cmd", "rsp", "ack"]:
    if isinstance(message, Durable):
        return "ack"
    if isinstance(message, Request):
        return "cmd"
    return "rsp" if isinstance(message, Response) else "info"
