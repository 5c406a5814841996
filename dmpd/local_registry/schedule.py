"""What is published because time passed: whose checkpoint is due, and how the roster is cut. Pure."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from dmpd.model.limits import ROSTER_SESSIONS_MAX

_FIRST: Final = "00000000-0000-0000-0000-000000000000"
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class RosterPart(NamedTuple):
    """The open sessions of one UUID range, both ends inclusive."""

    first: str
    last: str
    sessions: tuple[str, ...]


def offset_s(name: str, interval_s: float) -> float:
    """Where in the interval ``name`` has its turn: spread by a hash, the same in each life."""
    return zlib.crc32(name.encode()) / 2**32 * interval_s


def due(names: Iterable[str], *, since_s: float, now_s: float, interval_s: float) -> Iterator[str]:
    """The names whose turn lies in ``(since_s, now_s]``."""
    for name in names:
        turn_s = offset_s(name, interval_s)
        if (now_s - turn_s) // interval_s > (since_s - turn_s) // interval_s:
            yield name


def roster_parts(sessions: Sequence[str], part_max: int = ROSTER_SESSIONS_MAX) -> list[RosterPart]:
    """Cut ascending ``sessions`` into parts whose ranges cover every UUID exactly once, so that phantoms show."""
    chunks = [tuple(sessions[start : start + part_max]) for start in range(0, len(sessions), part_max)] or [()]
    parts, first = [], _FIRST
    for number, chunk in enumerate(chunks):
        last = _LAST if number == len(chunks) - 1 else chunk[-1]
        parts.append(RosterPart(first, last, chunk))
        first = _successor(last)
    return parts


def _successor(uuid: str) -> str:
    digits = f"{(int(uuid.replace('-', ''), 16) + 1) % 2**128:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
