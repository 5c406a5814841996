"""What Kafka says of one device session: for ``dmpctl explain``. Reads bounded ranges, commits nothing. Blocks."""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from dmpd.cli.config import CloudConfig
from dmpd.cloud_registry.explain import Applied, InKafka, LastLetter, Pending
from dmpd.cloud_registry.gather import instant_of, received_at
from dmpd.cloud_registry.query import DeviceDetail
from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.requests import REGISTRY
from dmpd.model.topics import cmd_topic, info_topic, partition_of
from dmpd.runtime.kafka_admin import group_lag
from dmpd.runtime.kafka_range import Range, RangeReader
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.stream.handler import Record
from dmpd.stream.letters import letter_of

_PENDING_RECORDS_MAX: Final = 20_000
_REQUESTS_MAX: Final = 5_000
_RECEIVED: Final = "mqtt-received-at"


def collect(config: CloudConfig, device: DeviceDetail, *, letters_max: int) -> InKafka:
    """Look into the topics of the feed, of dead letters and, for a stale row, of requests.

    Args:
        config: Where Kafka is, and the topics' names.
        device: Its row says where to look.
        letters_max: Look at the newest so many dead letters of each partition.

    Raises:
        KafkaUnreachableError, KafkaRefusedError: It does not answer, or does not want us.
    """
    topics = config.topics
    lag = group_lag(config.kafka, config.cloud_registry.stream.group, topics.info).get(device.kafka_partition, 0)
    with contextlib.closing(RangeReader(config.kafka, topics.info)) as reader:
        applied = _applied(reader, device)
        pending, complete = _pending(reader, device, lag)
    with contextlib.closing(RangeReader(config.kafka, topics.info_dead)) as reader:
        letter, letters_complete = _letter(reader, device, letters_max)
    asked_at = None
    if device.row.stale and device.row.closed is None:
        with contextlib.closing(RangeReader(config.kafka, topics.cmd)) as reader:
            asked_at = _asked_at(reader, device)
    return InKafka(
        applied=applied,
        lag=lag,
        pending=pending,
        pending_complete=complete,
        letter=letter,
        letters_complete=letters_complete,
        asked_at=asked_at,
    )


def _key(device: DeviceDetail) -> bytes:
    return info_topic(device.row.rae, device.row.session).encode()


def _applied(reader: RangeReader, device: DeviceDetail) -> Applied | None:
    """The record at the row's place; a roster (``absent``) stands there under the RAE's own key."""
    bounds = reader.bounds().get(device.kafka_partition)
    if bounds is None or not bounds.first <= device.kafka_offset < bounds.end:
        return None
    wanted = {device.kafka_partition: Range(device.kafka_offset, device.kafka_offset + 1)}
    record = next((one for one in reader.read(wanted) if one.offset == device.kafka_offset), None)
    if record is None:
        return None
    try:
        _, message = decode_record(record.key, record.value)
    except InvalidMessageError:  # the topic was made anew: another record stands there now
        return None
    if message.rae != device.row.rae:
        return None
    return Applied(
        kind=type(message).__name__.lower(),
        epoch=getattr(message, "epoch", None),
        rev=getattr(message, "rev", None),
        cause=getattr(message, "cause", None),
        said_at=message.at,
        received_at=_received_at(record),
        in_kafka_at=instant_of(record.timestamp_ms),
    )


def _pending(reader: RangeReader, device: DeviceDetail, lag: int) -> tuple[list[Pending], bool]:
    """Records of the session among those that are not processed yet, and whether all were looked at."""
    bounds = reader.bounds().get(device.kafka_partition)
    if bounds is None or lag <= 0:
        return [], True
    first = max(bounds.first, bounds.end - lag, device.kafka_offset + 1)
    wanted = Range(first, min(bounds.end, first + _PENDING_RECORDS_MAX))
    records = reader.read({device.kafka_partition: wanted})
    found = [_pending_of(one) for one in records if one.key == _key(device)]
    return found, wanted.end == bounds.end


def _pending_of(record: ReadRecord) -> Pending:
    try:
        _, message = decode_record(record.key, record.value)
    except InvalidMessageError as error:
        return Pending(offset=record.offset, kind=f"invalid, {error.reason}", rev=None)
    return Pending(offset=record.offset, kind=type(message).__name__.lower(), rev=getattr(message, "rev", None))


def _letter(reader: RangeReader, device: DeviceDetail, letters_max: int) -> tuple[LastLetter | None, bool]:
    bounds = reader.bounds()
    wanted = _tail(bounds, letters_max)
    newest = max(
        (one for one in reader.read(wanted) if one.key == _key(device)),
        key=lambda one: (one.timestamp_ms, one.offset),
        default=None,
    )
    complete = all(wanted[number].first == one.first for number, one in bounds.items())
    if newest is None:
        return None, complete
    letter = letter_of(newest.partition, newest.offset, newest.timestamp_ms, newest.key, newest.value, newest.headers)
    found = LastLetter(
        place=f"{letter.partition} {letter.offset}",
        at=instant_of(letter.timestamp_ms),
        reason=letter.reason,
        detail=letter.detail,
    )
    return found, complete


def _asked_at(reader: RangeReader, device: DeviceDetail) -> datetime | None:
    """When the Cloud Registry last asked for a checkpoint, among the newest requests to that RAE's partition."""
    number = partition_of(device.row.rae, len(reader.partitions))
    wanted = _tail({number: reader.bounds()[number]}, _REQUESTS_MAX)
    key = cmd_topic(device.row.rae, device.row.session, REGISTRY).encode()
    asked = [one.timestamp_ms for one in reader.read(wanted) if one.key == key]
    return instant_of(max(asked)) if asked else None


def _tail(bounds: Mapping[int, Range], records_max: int) -> dict[int, Range]:
    return {number: Range(max(one.first, one.end - records_max), one.end) for number, one in bounds.items()}


def _received_at(record: ReadRecord) -> datetime | None:
    """What the bridge wrote; None for a record that no bridge made."""
    if _RECEIVED not in dict(record.headers):
        return None
    return received_at(Record(record.offset, record.timestamp_ms, record.key, record.value, record.headers))
