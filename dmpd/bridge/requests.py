"""What becomes of one record of ``dmp.cmd``: a request to send, a dead letter, or an answer in the RAE's place. Pure.

A Kafka writer must not forge ``ack``, ``info`` or ``$CONTROL``: only keys that are a ``cmd`` topic, with a request for
just that topic as value, go to the broker.
"""

from datetime import datetime
from typing import Final

import msgspec

from dmpd.bridge.pending import Key, PendingRequest, Place
from dmpd.bridge.records import Outgoing
from dmpd.model.codec import decode_record, encode
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Outcome, Request, Response
from dmpd.model.requests import lifetime_of
from dmpd.model.topics import InvalidTopicError, parse_topic, partition_of, rsp_topic
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.runtime.settings import TopicSettings
from dmpd.stream.dead_letters import Origin, Verdict, dead_letter
from dmpd.stream.handler import Record

BY: Final = "bridge"


class _Head(msgspec.Struct):
    id: str


_head_decoder: Final = msgspec.json.Decoder(_Head)


def request_of(record: ReadRecord, *, now_s: float, wall_s: float) -> PendingRequest:
    """The request that ``record`` is.

    Its lifetime counts from the record's timestamp, which is the Kafka broker's: a clock of ours that runs behind
    lengthens nothing, one that runs ahead shortens.

    Args:
        record: Of ``dmp.cmd``.
        now_s: Monotonic clock, for the deadline.
        wall_s: Wall clock of the same moment.

    Raises:
        InvalidMessageError: It goes to no RAE.
    """
    topic, message = decode_record(record.key, record.value)
    if not isinstance(message, Request) or topic.requester is None:
        raise InvalidMessageError("bad_key", f"expected …/cmd/{{requester}}, got a topic for {topic.kind}")
    lifetime_s = lifetime_of(record.headers)
    age_s = 0.0 if record.timestamp_ms < 0 else max(0.0, wall_s - record.timestamp_ms / 1000)
    return PendingRequest(
        key=Key(topic.rae, topic.requester, message.id),
        place=Place(record.partition, record.offset),
        session=topic.session,
        topic=str(topic),
        payload=record.value or b"",
        lifetime_s=lifetime_s,
        deadline_s=now_s + lifetime_s - age_s,
    )


def answered_by(record: ReadRecord) -> Key | None:
    """Which request a record of ``dmp.rsp`` answers; None for what is no response."""
    try:
        topic = parse_topic((record.key or b"").decode())
        head = _head_decoder.decode(record.value or b"")
    except (InvalidTopicError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    if topic.kind != "rsp" or topic.requester is None:
        return None
    return Key(topic.rae, topic.requester, head.id)


def answer_for(
    request: PendingRequest, outcome: Outcome, error: str, *, at: datetime, topics: TopicSettings, partitions: int
) -> Outgoing:
    """What the bridge says in the place of a RAE, as a record for ``dmp.rsp``, which has so many ``partitions``."""
    rae = request.key.rae
    response = Response(
        v=1,
        rae=rae,
        session=request.session,
        at=at,
        id=request.key.id,
        outcome=outcome,
        error=error,
    )
    key = rsp_topic(rae, request.session, request.key.requester).encode()
    return Outgoing(topics.rsp, key, encode(response), partition_of(rae, partitions), (("dmpd-by", BY.encode()),), None)


def letter_of(
    record: ReadRecord, error: InvalidMessageError, *, at: datetime, topics: TopicSettings, truncated: bool = False
) -> Outgoing:
    """The dead letter of a record that goes to no RAE; ``truncated`` = Kafka refused it with its value."""
    letter = dead_letter(
        Record(record.offset, record.timestamp_ms, record.key, record.value, list(record.headers)),
        Verdict(error.reason, error.detail, BY),
        Origin(record.topic, record.partition),
        topic=topics.info_dead,
        at=at,
        truncated=truncated,
    )
    headers = tuple((name, value) for name, value in letter.headers)
    return Outgoing(letter.topic, letter.key, letter.value, None, headers, None, error.reason)  # type: ignore[arg-type]
