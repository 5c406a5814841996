"""The first look at a batch: plain messages fold as they are read, one run per device session. Pure.

Nearly every record goes this way. What does not (a session's end, a gap, another epoch, an event, whatever a RAE says
of itself) is ``rest``: whole sessions with all their records of the batch, in order, for ``gather`` and the full rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from dmpd.cloud_registry.gather import Refuse
from dmpd.cloud_registry.known import Known, plain_value
from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.fold import RECORD_FIELDS
from dmpd.model.messages import Change, Checkpoint, Message, Roster
from dmpd.model.plain import PlainChange, PlainCheckpoint, PlainSet
from dmpd.model.running import Running
from dmpd.model.topics import RAE_SESSION, InvalidTopicError, Topic, info_topic, parse_topic
from dmpd.stream.handler import Record

_RAE_TOPIC_END = info_topic("", RAE_SESSION).encode().removeprefix(b"dmp/v1/")


def device_topic(key: bytes | None) -> Topic | None:
    """The topic of a device session's messages, or ``None`` if ``key`` is none."""
    if key is None:
        return None
    try:
        topic = parse_topic(key.decode("ascii"))
    except (UnicodeDecodeError, InvalidTopicError):
        return None  # judged, and refused with its reason, where all rules are applied
    return topic if topic.kind == "info" and topic.session != RAE_SESSION else None


def scan(
    records: Sequence[Record], topics: Mapping[bytes, Topic], known: Mapping[bytes, Known | None], refuse: Refuse
) -> tuple[dict[bytes, Running], list[Record]]:
    """Fold what is plain.

    Args:
        records: Of one partition, oldest first.
        topics: Of every key that is a device session's, as ``device_topic`` gives it.
        known: The row of each of these sessions, ``None`` where there is no row. A session that is not in it has a row
            that only the full rules can judge.
        refuse: Told of each record that is no valid message, with reason and detail.

    Returns:
        The runs by key, all regular, and the rest.
    """
    groups: dict[bytes | None, list[Record]] = {}
    for record in records:
        group = groups.get(record.key)
        if group is None:
            groups[record.key] = [record]
        else:
            group.append(record)
    runs: dict[bytes, Running] = {}
    odd_raes: set[str] = set()
    for key, group in groups.items():
        if key is None or key not in topics:
            odd_raes.update(raes_with_rosters(group))
        elif key in known:
            rae, session, *_ = topics[key]
            row = known[key]
            run = Running(rae, session) if row is None else Running(rae, session, row.epoch, row.rev)
            run.take([record.value for record in group], lambda n: _judge(group[n], run, refuse))  # noqa: B023 - at once
            if not run.irregular:
                run.last_offset = group[-1].offset
                runs[key] = run
    if odd_raes:
        runs = {key: run for key, run in runs.items() if run.rae not in odd_raes}
    odd = groups.keys() - runs.keys()
    return runs, [record for record in records if record.key in odd] if odd else []


def _judge(record: Record, run: Running, refuse: Refuse) -> PlainChange | PlainCheckpoint | None:
    """Judged by all rules: plain after all if its values are, whatever their spelling.

    ``None``: refused, or, if ``run`` is irregular now, something else.
    """
    try:
        _, message = decode_record(record.key, record.value)
    except InvalidMessageError as error:
        refuse(record, error.reason, error.detail)
        return None
    plain = plain_of(message)
    run.irregular = plain is None
    return plain


def plain_of(message: Message) -> PlainChange | PlainCheckpoint | None:
    """``message`` as if it had been plain, if it says nothing else than plain ones do."""
    if isinstance(message, Change) and not message.unset:
        content = message.patch
        if any(getattr(content, name) is not UNSET for name in RECORD_FIELDS if name != "state"):
            return None
        found = PlainSet(content.state)
        if content.attributes is not UNSET:
            found.attributes = _plain_values(content.attributes)
        return PlainChange(
            v=1, rae=message.rae, session=message.session, at=message.at, epoch=message.epoch, rev=message.rev,
            seq=message.seq, patch=found, cause=message.cause,
        )  # fmt: skip
    if isinstance(message, Checkpoint):
        plain: Any = _plain_values(message.record.attributes)
        record: Any = msgspec.structs.replace(message.record, attributes=plain)
        return PlainCheckpoint(
            v=1, rae=message.rae, session=message.session, at=message.at, epoch=message.epoch, rev=message.rev,
            seq=message.seq, record=record, cause=message.cause,
        )  # fmt: skip
    return None


def _plain_values(attributes: Mapping[str, Raw]) -> dict[str, Any]:
    return {name: plain_value(value) for name, value in attributes.items()}


def raes_with_rosters(group: Iterable[Record]) -> Iterable[str]:
    """A roster is judged together with every session of its RAE."""
    for record in group:
        if record.key is None or not record.key.endswith(_RAE_TOPIC_END):
            continue
        try:
            _, message = decode_record(record.key, record.value)
        except InvalidMessageError:
            continue  # refused where all rules are applied
        if isinstance(message, Roster):
            yield message.rae


def keys_of(records: Iterable[Record]) -> set[bytes | None]:
    return {record.key for record in records}
