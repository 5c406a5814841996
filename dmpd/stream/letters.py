"""Dead letters as they are read back, and what a replay makes of one: pure. The other side of ``dead_letters``."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from dmpd.stream.dead_letters import OURS, PREFIX, REPLAYED

Headers = Sequence[tuple[str, bytes | None]]

_PARTITION_MAX: Final = (1 << 31) - 1
_OFFSET_MAX: Final = (1 << 63) - 1
_HIGHEST: Final = {"dmpd-partition": _PARTITION_MAX, "dmpd-offset": _OFFSET_MAX}
"""Kafka's own: the client takes no larger ones."""
_DIGITS_MAX: Final = 19
_SHOWN_MAX: Final = 40


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
    impossible: str
    """What the headers say of that place and cannot be, in one sentence; empty = nothing."""
    truncated: bool
    """Its value was too large to be kept."""
    replayed: int
    """How often it was replayed before, in vain."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    """The record's own."""


class Replay(NamedTuple):
    """The record that goes back."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class NotReplayableError(Exception):
    """This letter cannot go back; the text says why, in one sentence."""


def letter_of(
    partition: int, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> Letter:
    """Read one back. Anybody may write into the topic, so nothing about the headers is taken for granted."""
    said = {name: (content or b"").decode(errors="replace") for name, content in headers if name.startswith(PREFIX)}
    nulls = said.get("dmpd-null", "").split(",")
    place, impossible = _place(said)
    return Letter(
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
        at=said.get("dmpd-at", ""),
        reason=said.get("dmpd-reason", ""),
        detail=said.get("dmpd-detail", ""),
        by=said.get("dmpd-by", ""),
        topic=said.get("dmpd-topic"),
        origin_partition=place["dmpd-partition"],
        origin_offset=place["dmpd-offset"],
        impossible=impossible,
        truncated="dmpd-truncated" in said,
        replayed=_number(said.get(REPLAYED), _OFFSET_MAX) or 0,
        key=None if "key" in nulls else key,
        value=None if "value" in nulls else value,
        headers=[header for header in headers if header[0] not in OURS and header[0] != REPLAYED],
    )


def replay_of(letter: Letter, *, topic: str) -> Replay:
    """The record as it was, to where it was, marked with how often that was done.

    ``topic``: the only one that it may go to, since whoever may write dead letters can name any.

    Raises:
        NotReplayableError: It is not whole, or it never was a record of ``topic``.
    """
    if letter.truncated:
        raise NotReplayableError("its value was too large to be kept (dmpd-truncated): only its producer has it")
    if letter.impossible:
        raise NotReplayableError(letter.impossible)
    if letter.topic is None or letter.origin_partition is None:
        by = f" by {letter.by}" if letter.by else ""
        raise NotReplayableError(
            f"it was refused{by} before it was a record of a topic: only its producer can repeat it"
        )
    if letter.topic != topic:
        raise NotReplayableError(f"it is from the topic {letter.topic}, not from {topic}")
    mark = (REPLAYED, b"%d" % (letter.replayed + 1))
    return Replay(letter.topic, letter.origin_partition, letter.key, letter.value, [*letter.headers, mark])


def _place(said: Mapping[str, str]) -> tuple[dict[str, int | None], str]:
    """Partition and offset by their headers' names, None = not said; and a sentence if one cannot be."""
    found = {name: _number(said.get(name), highest) for name, highest in _HIGHEST.items()}
    wrong = [f"{name} {said[name][:_SHOWN_MAX]!r}" for name, number in found.items() if number is None and name in said]
    return found, f"its headers name no place in a topic: {', '.join(wrong)}" if wrong else ""


def _number(text: str | None, highest: int) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX:
        return None
    number = int(text)
    return number if number <= highest else None
