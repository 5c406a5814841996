"""How a record that was given up looks in the dead-letter topic: pure.

Key, value and headers as they were, so that it can be replayed, and why, by whom, when and where it stood as headers.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dmpd.stream.handler import Record

PREFIX = "dmpd-"
REPLAYED = "dmpd-replayed"
"""How often the record was replayed from the dead letters before; the one header of ours that a record keeps."""
OURS = frozenset(
    PREFIX + name for name in ("reason", "detail", "by", "topic", "partition", "offset", "at", "truncated", "null")
)
"""What a dead letter says about itself. Any other header is the record's."""


class OutgoingRecord(NamedTuple):
    """A record to produce."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes | None]] = ()


class Verdict(NamedTuple):
    """Why a record was given up. ``by`` = who said so: ``handler``, or ``stream`` for one over the size limit."""

    reason: str
    detail: str
    by: str


class Origin(NamedTuple):
    topic: str
    partition: int


def dead_letter(
    record: Record, verdict: Verdict, origin: Origin, *, topic: str, at: datetime, truncated: bool = False
) -> OutgoingRecord:
    """The dead letter of ``record``. ``truncated``: without its value, because Kafka refused it with it.

    Headers of an earlier life as a dead letter (it was replayed and failed again) give way to the new ones; how often
    that was stays. A key or value that is null becomes empty (dead-letter topics are not compacted, so an empty one
    deletes nothing) and ``dmpd-null`` says which; a header's null stays.
    """
    headers = [header for header in record.headers if header[0] not in OURS]
    facts = {
        "reason": verdict.reason,
        "detail": verdict.detail,
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(record.offset),
        "at": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "by": verdict.by,
    }
    nulls = [name for name, content in (("key", record.key), ("value", record.value)) if content is None]
    if nulls:
        facts["null"] = ",".join(nulls)
    if truncated:
        facts["truncated"] = str(len(record.value or b""))
    headers += [(PREFIX + name, text.encode(errors="replace")) for name, text in facts.items()]
    return OutgoingRecord(topic, record.key or b"", b"" if truncated else record.value or b"", headers)
