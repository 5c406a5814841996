"""What becomes of one MQTT message: a Kafka record, a dead letter, or nothing. Pure.

Only the head of a payload is read: enough to see that it is about whom its topic says, and which outbox row it is.
Whether the rest is right is judged by the Cloud Registry, behind Kafka, where it can be replayed.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import msgspec

from dmpd.model import limits
from dmpd.model.principals import is_rae
from dmpd.model.topics import InvalidTopicError, Topic, parse_topic, partition_of
from dmpd.runtime.settings import TopicSettings

HEADERS_BYTES_MAX: Final = 16 * 1024
"""Of user properties; a message with more is a dead letter without them."""

Header = tuple[str, bytes]


class Received(Protocol):
    """What this module reads of ``runtime.mqtt.Message``."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retain(self) -> bool: ...
    @property
    def expiry_s(self) -> int | None: ...
    @property
    def properties(self) -> Sequence[tuple[str, str]]: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def correlation_data(self) -> bytes | None: ...
    @property
    def malformed(self) -> str | None: ...


class Row(NamedTuple):
    """The outbox row that a message is; told back to its RAE once it is safe."""

    rae: str
    epoch: int
    seq: int


class Outgoing(NamedTuple):
    """One record for Kafka. ``reason`` is set for a dead letter."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None
    headers: tuple[Header, ...]
    row: Row | None
    reason: str | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.key) + len(self.value)


class _Head(msgspec.Struct):
    """All that is read of a payload. Unknown kinds and versions pass: the Cloud Registry can replay those later."""

    rae: str
    session: str
    epoch: int | None = None
    seq: int | None = None


_head_decoder: Final = msgspec.json.Decoder(_Head)


def record_of(
    message: Received, topics: TopicSettings, *, partitions: Mapping[str, int], now_s: float
) -> Outgoing | None:
    """The record that ``message`` becomes, or None if it is to be acknowledged and forgotten.

    Args:
        message: As received.
        topics: Names of the Kafka topics.
        partitions: How many partitions the info and rsp topics have, by name.
        now_s: Wall clock; becomes ``mqtt-received-at``.
    """
    headers = _headers(message, now_s)
    try:
        topic = parse_topic(message.topic)
    except InvalidTopicError as error:
        if _is_stranger(message.topic):
            return None
        return _refused(message, topics, headers, "bad_key", str(error))
    if topic.kind not in ("info", "rsp"):
        return None
    return _checked(message, topic, topics, headers, partitions)


def _is_stranger(topic: str) -> bool:
    """Whether it comes from no RAE: as dead letters these would be a flood that costs its author nothing."""
    levels = topic.split("/", 3)
    return topic.startswith("$") or len(levels) < 4 or not is_rae(levels[2])


def dead_letter(record: Outgoing, topics: TopicSettings, *, reason: str, detail: str) -> Outgoing:
    """``record``, which Kafka will not take, as a dead letter with the same key and headers."""
    value, mark = _fitting(record.value, topics)
    headers = (*record.headers, *_verdict(reason, detail), *mark)
    return Outgoing(topics.info_dead, record.key, value, None, headers, record.row, reason)


def _checked(
    message: Received, topic: Topic, topics: TopicSettings, headers: tuple[Header, ...], partitions: Mapping[str, int]
) -> Outgoing:
    payload = message.payload
    if len(headers) > 1 and _size_bytes(headers) > HEADERS_BYTES_MAX:
        return _refused(message, topics, headers, "too_large", f"properties over {HEADERS_BYTES_MAX} bytes")
    if message.malformed is not None:
        return _refused(message, topics, headers, "malformed", f"{message.malformed}: not UTF-8")
    if len(payload) > limits.PAYLOAD_BYTES_MAX:
        detail = f"{len(payload)} bytes, at most {limits.PAYLOAD_BYTES_MAX}"
        return _refused(message, topics, headers, "too_large", detail)
    if not payload:
        return _refused(message, topics, headers, "empty", "no payload")
    try:
        head = _head_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _refused(message, topics, headers, "malformed", str(error) or type(error).__name__)
    row = _row(topic.rae, head)
    if head.rae != topic.rae or head.session != topic.session:
        refused = _refused(message, topics, headers, "mismatch", "rae or session differ from the topic's")
        return refused._replace(row=row)
    name = topics.info if topic.kind == "info" else topics.rsp
    return Outgoing(name, message.topic.encode(), payload, partition_of(topic.rae, partitions[name]), headers, row)


def _row(rae: str, head: _Head) -> Row | None:
    """The row, if the message claims to be one and an ack for it could be written at all."""
    if head.epoch is None or head.seq is None:
        return None
    valid = limits.EPOCH_MIN <= head.epoch <= limits.EPOCH_MAX and 1 <= head.seq <= limits.INT64_MAX
    return Row(rae, head.epoch, head.seq) if valid else None


def _refused(
    message: Received, topics: TopicSettings, headers: tuple[Header, ...], reason: str, detail: str
) -> Outgoing:
    value, mark = _fitting(message.payload, topics)
    key = message.topic.encode(errors="replace")
    if _size_bytes(headers) > HEADERS_BYTES_MAX:
        headers = headers[:1]
    return Outgoing(topics.info_dead, key, value, None, (*headers, *_verdict(reason, detail), *mark), None, reason)


def _verdict(reason: str, detail: str) -> tuple[Header, ...]:
    return (
        ("dmpd-reason", reason.encode()),
        ("dmpd-detail", detail[:512].encode(errors="replace")),
        ("dmpd-by", b"bridge"),
    )


def _fitting(value: bytes, topics: TopicSettings) -> tuple[bytes, tuple[Header, ...]]:
    """``value`` if Kafka takes it beside its key (MQTT: ≤ 64 KiB) and headers, else nothing and a mark."""
    if len(value) <= topics.max_message_bytes - (HEADERS_BYTES_MAX + 68 * 1024):
        return value, ()
    return b"", (("dmpd-truncated", b"1"),)


def _size_bytes(headers: tuple[Header, ...]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def _headers(message: Received, now_s: float) -> tuple[Header, ...]:
    headers: list[Header] = [("mqtt-received-at", _instant(int(now_s * 1000)))]
    if message.retain:
        headers.append(("mqtt-retain", b"1"))
    if message.expiry_s is not None:
        headers.append(("mqtt-message-expiry-interval", b"%d" % message.expiry_s))
    if message.content_type is not None:
        headers.append(("mqtt-content-type", message.content_type.encode(errors="replace")))
    if message.correlation_data is not None:
        headers.append(("mqtt-correlation-data", message.correlation_data))
    for name, value in message.properties:
        headers.append((f"mqtt-user-{name}", value.encode(errors="replace")))
    return tuple(headers)


@lru_cache(maxsize=16)
def _instant(now_ms: int) -> bytes:
    text = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").encode()
