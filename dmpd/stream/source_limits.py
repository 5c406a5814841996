"""How many dead letters one source may cause: pure, ``now_s`` monotonic and passed in.

A source is what a function of the record's key says (a tenant, a device's router): one that sends nothing but rubbish
must not fill the dead-letter topic, and must not cost the others their letters. What is over the limit is judged and
counted all the same, and every thousandth is kept as a sample.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

_log = logging.getLogger(__name__)

SourceOf = Callable[[bytes | None], bytes]
"""Names the source of a record by its key. Called in the parent for records that are given up; should be quick."""

WINDOW_S: Final = 60.0
SOURCES_MAX: Final = 10_000
"""Sources that are counted apart in one window; all further ones share one limit. Bounds memory to a few megabytes."""
NAMED_MAX: Final = 10
"""Sources that are named in one window's lines of the log."""
NAME_BYTES_MAX: Final = 128
_OTHERS: Final = b"(others)"


def whole_key(key: bytes | None) -> bytes:
    """The default: each key is a source of its own."""
    return key or b""


class Sources:
    """Names sources: the function given by the program, made safe. What it names is at most 161 bytes."""

    def __init__(self, source_of: SourceOf) -> None:
        self._source_of: Final = source_of
        self._has_failed = False

    def name(self, key: bytes | None) -> bytes:
        """The source of ``key``. A function that raises costs the sources their names, never the stream its life."""
        try:
            name = self._source_of(key)
        except Exception:  # the border to the program's code: said once, and all such keys are one source
            if not self._has_failed:
                _log.exception("source_of failed for the key %r; such records count as one source", key)
            self._has_failed = True
            return b"(unknown)"
        if len(name) <= NAME_BYTES_MAX:
            return name
        digest = hashlib.blake2b(name, digest_size=16).hexdigest().encode()
        return name[:NAME_BYTES_MAX] + b"~" + digest


class Overrun(NamedTuple):
    """A source whose letters were not all kept in the window that ended."""

    source: str
    dropped: int


class Dropped(NamedTuple):
    """What was not kept in the window that ended: the worst sources, how many more there were, how many letters."""

    worst: list[Overrun]
    more_sources: int
    letters: int


class SourceLimits:
    """Counts per source in windows of a minute, all sources' windows beginning together.

    Invariants: in one window at most ``per_minute`` letters of a source are kept, plus one in ``sample_every`` of the
    rest (in any sixty seconds, which may touch two windows, twice that); at most ``SOURCES_MAX + 1`` are counted.
    """

    def __init__(self, *, per_minute: int, sample_every: int = 1000) -> None:
        self._per_minute: Final = per_minute
        self._sample_every: Final = sample_every
        self._counts: dict[bytes, int] = {}
        self._window_ends_s = float("-inf")

    def keeps(self, source: bytes, now_s: float) -> bool:
        """Count one more dead letter of ``source``; whether it is to be produced. Call ``ended`` before, each turn."""
        if now_s >= self._window_ends_s and not self._counts:
            self._window_ends_s = now_s + WINDOW_S
        if source not in self._counts and len(self._counts) >= SOURCES_MAX:
            source = _OTHERS
        count = self._counts[source] = self._counts.get(source, 0) + 1
        over = count - self._per_minute
        return over <= 0 or over % self._sample_every == 0

    def ended(self, now_s: float) -> Dropped | None:
        """When a window is over: begin another, and say what was not kept in the last one; None = nothing to say."""
        if now_s < self._window_ends_s or not self._counts:
            return None
        counts, self._counts = self._counts, {}
        dropped = {source: self._dropped(count) for source, count in counts.items() if self._dropped(count)}
        if not dropped:
            return None
        worst = sorted(dropped.items(), key=lambda one: (-one[1], one[0]))[:NAMED_MAX]
        named = [Overrun(source.decode(errors="replace"), count) for source, count in worst]
        return Dropped(named, len(dropped) - len(worst), sum(dropped.values()))

    def _dropped(self, count: int) -> int:
        over = max(0, count - self._per_minute)
        return over - over // self._sample_every
