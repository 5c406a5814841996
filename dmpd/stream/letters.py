"""Dead letters as they are read back, and what a replay makes of one: pure. The other side of ``dead_letters``."""

from collections.abc import Sequence
from typing import NamedTuple

from dmpd.stream.dead_letters import PREFIX, REPLAYED

Headers = Sequence[tuple[str, bytes | None]]


class Letter(NamedTuple):
    """One dead letter. What its headers do not say is None or empty."""

    partition: int
    offset: int
    """Where it lies in the dead-letter topic."""
    timestamp_ms: int
    """When Kafka took it."""
    at: str
    """When it was given up, if that is said."""
    reason: str
    detail: str
    by: str
    topic: str | None
    """Where the record stood, with the next two."""
    origin_partition: int | None
    origin_offset: int | None
    truncated: bool
    """Its value was too large to be kept."""
    replayed: int
    """How often it was replayed before, in vain."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """The record's own."""


class Replay(NamedTuple):
    """The record that goes back."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class NotReplayableError(Exception):
    """This letter cannot go back; the text says why, in one sentence."""


def letter_of(
    partition: int, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> Letter:
    """Read one back. Anybody may write into the topic, so nothing about the headers is taken for granted."""
    said = {name: (content or b"").decode(errors="replace") for name, content in headers if name.startswith(PREFIX)}
    nulls = said.get("dmpd-null", "").split(",")
    return Letter(
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
        at=said.get("dmpd-at", ""),
        reason=said.get("dmpd-reason", ""),
        detail=said.get("dmpd-detail", ""),
        by=said.get("dmpd-by", ""),
        topic=said.get("dmpd-topic"),
        origin_partition=_number(said.get("dmpd-partition")),
        origin_offset=_number(said.get("dmpd-offset")),
        truncated="dmpd-truncated" in said,
        replayed=_number(said.get(REPLAYED)) or 0,
        key=None if "key" in nulls else key,
        value=None if "value" in nulls else value,
        headers=[(name, content or b"") for name, content in headers if not name.startswith(PREFIX)],
    )


def replay_of(letter: Letter, *, topic: str) -> Replay:
    """The record as it was, to where it was, marked with how often that was done.

    ``topic``: the only one that it may go to, since whoever may write dead letters can name any.

    Raises:
        NotReplayableError: It is not whole, or it never was a record of ``topic``.
    """
    if letter.truncated:
        raise NotReplayableError("its value was too large to be kept (dmpd-truncated): only its producer has it")
    if letter.topic is None or letter.origin_partition is None:
        by = f" by {letter.by}" if letter.by else ""
        raise NotReplayableError(
            f"it was refused{by} before it was a record of a topic: only its producer can repeat it"
        )
    if letter.topic != topic:
        raise NotReplayableError(f"it is from the topic {letter.topic}, not from {topic}")
    mark = (REPLAYED, b"%d" % (letter.replayed + 1))
    return Replay(letter.topic, letter.origin_partition, letter.key, letter.value, [*letter.headers, mark])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None
