"""Why a device row looks as it does: what is known of it, hop by hop, and the conclusions in sentences. Pure.

What is known is collected elsewhere (``query`` for the database, the caller for Kafka); what Kafka did not say is None.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from dmpd.cloud_registry.query import DeviceDetail, Rae
from dmpd.model.apply import DeviceRow

Clock = Literal["RAE", "bridge", "Kafka", "database"]

_FRESH: Final = timedelta(seconds=180)


class Hop(Struct, frozen=True, kw_only=True):
    """One stage of the last record that changed the row. Each time is of the clock that it names."""

    name: str
    at: datetime
    clock: Clock
    after_s: float | None
    """Since the hop before; clocks differ, so it may be negative. None = the first."""


class Applied(Struct, frozen=True, kw_only=True):
    """The record that changed the row last, as Kafka still has it."""

    kind: str
    epoch: int | None
    rev: int | None
    said_at: datetime
    received_at: datetime | None
    in_kafka_at: datetime
    cause: str | None = None


class Pending(Struct, frozen=True, kw_only=True):
    """A record of this session that lies in Kafka and is not applied yet."""

    offset: int
    kind: str
    rev: int | None


class LastLetter(Struct, frozen=True, kw_only=True):
    """The newest dead letter of this session."""

    place: str
    """Partition and offset in the dead-letter topic, as ``dmpctl dead-letters show`` takes them."""
    at: datetime
    reason: str
    detail: str


class InKafka(Struct, frozen=True, kw_only=True):
    """What Kafka says."""

    applied: Applied | None
    """None = retention has removed it, or it is not where the row says."""
    lag: int
    """Records of the row's partition that are not processed yet, of whatever session."""
    pending: Sequence[Pending]
    pending_complete: bool
    """Whether all of them were looked at."""
    letter: LastLetter | None
    letters_complete: bool
    asked_at: datetime | None
    """When the cloud last asked for a checkpoint of this session, of what was looked at."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Everything, and the conclusions: the first sentence is the verdict."""

    why: Sequence[str]
    hops: Sequence[Hop]
    device: DeviceDetail
    rae: Rae | None
    kafka: InKafka | None


def explain(
    device: DeviceDetail, rae: Rae | None, kafka: InKafka | None, *, now: datetime, kafka_problem: str | None = None
) -> Explanation:
    """Conclude. ``kafka_problem`` says why ``kafka`` is None."""
    said = [*_of_row(device, kafka), *_of_rae(device.row, rae), *_of_kafka(device, kafka, now)]
    if kafka_problem is not None:
        said.append(f"What Kafka has is not known: {kafka_problem}")
    applied = None if kafka is None else kafka.applied
    return Explanation(why=said, hops=hops(device, applied), device=device, rae=rae, kafka=kafka)


def hops(device: DeviceDetail, applied: Applied | None) -> list[Hop]:
    """From the change on the RAE to the row."""
    stages: list[tuple[str, datetime | None, Clock]] = [
        ("said by the RAE", device.row.changed_at if applied is None else applied.said_at, "RAE"),
        ("received by the bridge", None if applied is None else applied.received_at, "bridge"),
        ("in Kafka", None if applied is None else applied.in_kafka_at, "Kafka"),
        ("row written", device.applied_at, "database"),
    ]
    found: list[Hop] = []
    for name, at, clock in stages:
        if at is not None:
            after_s = round((at - found[-1].at).total_seconds(), 3) if found else None
            found.append(Hop(name=name, at=at, clock=clock, after_s=after_s))
    return found


def _of_row(device: DeviceDetail, kafka: InKafka | None) -> Iterator[str]:
    row = device.row
    place = f"partition {device.kafka_partition}, offset {device.kafka_offset}"
    if row.closed is not None:
        on = f", and goes on as {row.successor}" if row.successor else ""
        yield f"The device session ended ({row.closed}){on}: its content is gone, the tombstone stays for a time."
    elif row.stale:
        yield f"The row is stale: something before rev {row.rev} was missed, so its content may be wrong."
        yield from _of_request(kafka)
    else:
        yield f"The row is exact: it is what the RAE had at epoch {row.epoch}, rev {row.rev}."
    if row.absent and row.closed is None:
        yield "It is absent: its RAE's list of devices did not have it, and nothing was heard of it since."
    yield f"It was last changed by the record at {place}{_last(kafka)}."


def _last(kafka: InKafka | None) -> str:
    if kafka is None:
        return ""
    applied = kafka.applied
    if applied is None:
        return ", which Kafka no longer has"
    cause = f", cause {applied.cause}" if applied.cause else ""
    return f": a {applied.kind}{'' if applied.rev is None else f' of rev {applied.rev}'}{cause}"


def _of_request(kafka: InKafka | None) -> Iterator[str]:
    if kafka is None:
        return
    if kafka.asked_at is None:
        yield "No request for a checkpoint was found: it is made when its RAE can be reached and its turn has come."
    else:
        yield f"A checkpoint was asked for at {kafka.asked_at:%Y-%m-%d %H:%M:%SZ}; only a checkpoint makes it exact."


def _of_rae(row: DeviceRow, rae: Rae | None) -> Iterator[str]:
    if rae is None or rae.status is None or rae.state is None:
        yield f"{row.rae} has never said how it is: nothing is known of its connection."
        return
    status = rae.status
    if not rae.reachable:
        silent = "" if rae.silence_s is None else f", nothing was heard for {rae.silence_s:.0f} s"
        yield f"{row.rae} cannot be reached (it is {rae.state}{silent}): the row is the newest the cloud can know."
    elif status.outbox_rows:
        yield (
            f"{row.rae} is {rae.state} and said that {status.outbox_rows} of its changes wait to be sent,"
            f" the oldest for {status.outbox_age_s:.0f} s: some may be of this device."
        )
    else:
        yield f"{row.rae} is {rae.state} and had nothing left to send when it was last heard."
    if row.closed is None and status.epoch > row.epoch:
        yield f"The RAE is in a later epoch ({status.epoch}) and has not spoken of this device in it."
    elif row.closed is None and status.epoch < row.epoch:
        yield (
            f"The row's epoch ({row.epoch}) outranks that of the RAE ({status.epoch}): what it sends is dropped until"
            " it has raised its own, as it is told to."
        )


def _of_kafka(device: DeviceDetail, kafka: InKafka | None, now: datetime) -> Iterator[str]:
    if kafka is None:
        return
    if kafka.pending:
        newest = kafka.pending[-1]
        many = len(kafka.pending) != 1
        yield (
            f"{len(kafka.pending)} newer {'records' if many else 'record'} of this device {'wait' if many else 'waits'}"
            f" in Kafka (the last: {newest.kind} at offset {newest.offset})."
        )
    elif kafka.lag:
        looked = "none" if kafka.pending_complete else "none of those looked at"
        yield f"{kafka.lag} records wait in partition {device.kafka_partition}, {looked} of this device."
    else:
        yield f"Partition {device.kafka_partition} has caught up: Kafka holds nothing newer."
    letter = kafka.letter
    if letter is not None:
        detail = f": {letter.detail}" if letter.detail else ""
        later = " after the row was written" if letter.at > device.applied_at else ""
        age = "" if now - letter.at > _FRESH else " just now"
        yield (
            f"Its last dead letter came{age} at {letter.at:%Y-%m-%d %H:%M:%SZ}{later}: {letter.reason}{detail}"
            f" (dmpctl dead-letters show {letter.place})."
        )
    elif not kafka.letters_complete:
        yield "No dead letter of it among the newest; older ones were not looked at (--scan)."
