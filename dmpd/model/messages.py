"""Every message kind of dmpd, one definition for edge and cloud. ``codec`` decodes and encodes them.

All carry ``v``, ``kind`` (the tag), ``rae``, ``session``, ``at``, and, but for requests, ``epoch``. ``(epoch, rev)``
orders a device session; ``seq`` is the number of an outbox row and is absent on messages that are none (periodic
checkpoints, rosters; a status has one of its own kind).
"""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from dmpd.model import limits
from dmpd.model.record import Code, DeviceRecord, Instant, RecordPatch, Text

Epoch = Annotated[int, Meta(ge=limits.EPOCH_MIN, le=limits.EPOCH_MAX)]
Positive64 = Annotated[int, Meta(ge=1, le=limits.INT64_MAX)]
Count64 = Annotated[int, Meta(ge=0, le=limits.INT64_MAX)]
Uuid = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
Details = Annotated[dict[str, Raw], Meta(max_length=limits.ATTRIBUTES_MAX)]

ClosedReason = Literal["left", "merged", "reonboarded", "forgotten"]
RaeState = Literal["ready", "draining", "disconnected", "lost"]
Outcome = Literal["accepted", "done", "failed", "refused", "expired", "interrupted"]


class Addressed(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Whom a message is about: equal to the topic it came on, or it is a dead letter."""

    v: Literal[1]
    rae: str
    session: str
    at: Instant


class Change(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="change"):
    """One revision of one device session: absolute final values of what changed."""

    epoch: Epoch
    rev: Positive64
    seq: Positive64 | None = None
    patch: RecordPatch = field(name="set", default_factory=RecordPatch)
    unset: Annotated[tuple[str, ...], Meta(max_length=limits.ATTRIBUTES_MAX)] = ()
    cause: Code | None = None


class Checkpoint(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="checkpoint"):
    """The complete record as of ``rev``."""

    epoch: Epoch
    rev: Positive64
    record: DeviceRecord
    seq: Positive64 | None = None
    cause: Code | None = None


class Closed(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="closed"):
    """The end of a device session, whatever its epoch and rev."""

    epoch: Epoch
    rev: Positive64
    reason: ClosedReason
    successor: Uuid | None = None
    seq: Positive64 | None = None


class Event(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="event"):
    """Something an operator should know of, about a device session or the RAE."""

    epoch: Epoch
    code: Code
    detail: Details = {}
    seq: Positive64 | None = None


class Status(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="status"):
    """The RAE itself. Ordered by ``(epoch, run)``; within a run ``lost`` and ``disconnected`` are final.

    ``at`` never times anything in the cloud: the bridge's ``mqtt-received-at`` does. An age is at most 317 years, a
    certificate at most 4,000,000 days from its end (``limits``; checked on receipt, not of what is stored).
    """

    epoch: Epoch
    state: RaeState
    run: Positive64
    seq_high: Count64
    seq: Positive64 | None = None
    """No outbox row's: above 2^52, for ``durable`` to show that the bridge has taken what was sent before."""
    version: Code | None = None
    lan: Literal["up", "down", "unknown"] = "unknown"
    outbox_rows: Count64 = 0
    outbox_bytes: Count64 = 0
    outbox_age_s: Annotated[float, Meta(ge=0)] = 0.0
    events_dropped: Count64 = 0
    clock: Literal["ok", "unsynchronised", "unknown"] = "unknown"
    certificate_days_left: int | None = None


class Roster(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="roster"):
    """The open device sessions with ids in ``first..last`` (inclusive), as of outbox row ``seq_high``."""

    epoch: Epoch
    first: Uuid
    last: Uuid
    sessions: Annotated[tuple[Uuid, ...], Meta(max_length=limits.ROSTER_SESSIONS_MAX)]
    seq_high: Count64


class Durable(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="durable"):
    """Bridge to RAE: these outbox rows of ``epoch`` stand in Kafka (or its dead-letter topic), inclusive ranges."""

    epoch: Epoch
    stored: Annotated[tuple[tuple[Positive64, Positive64], ...], Meta(max_length=limits.DURABLE_RANGES_MAX)]


class Request(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="request"):
    """Asks a device session or its RAE to do something. No epoch: a requester cannot know it."""

    id: Code
    verb: Code
    args: Details = {}


class Response(Addressed, frozen=True, kw_only=True, omit_defaults=True, tag="response"):
    """The answer to request ``id`` of the requester named by the topic.

    Without ``epoch`` it is not the RAE's: the bridge says ``expired`` or ``refused`` for one that did not answer.
    """

    epoch: Epoch | None = None
    id: Code
    outcome: Outcome
    result: Raw = Raw(b"null")
    """Any JSON. (msgspec takes a raw value only where nothing else is allowed, so its absence is the text ``null``.)"""
    error: Text | None = None
    seq: Positive64 | None = None


DeviceMessage = Change | Checkpoint | Closed | Event
RaeMessage = Status | Roster | Event
InfoMessage = Change | Checkpoint | Closed | Event | Status | Roster
Message = InfoMessage | Durable | Request | Response
