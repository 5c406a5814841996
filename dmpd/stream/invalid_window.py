"""When a partition is halted: pure. One ``InvalidWindow`` per partition and assignment.

One bad message costs one message, and one bad source its own letters. But when most of what comes is called invalid,
and from many sources, the fault is not in the records: a wrong handler, a wrong schema, a wrong topic. Going on would
turn the feed into dead letters, so it stands still until a person has looked.
"""

import heapq
from collections import Counter
from typing import Final, NamedTuple

RECORDS: Final = 1000
"""Width of the window, in records of the partition."""
INVALID_MAX: Final = RECORDS // 2
"""More invalid records than this in the window halt the partition, if their sources are enough."""
SOURCES_MIN: Final = 10
"""Fewer than this are bad sources, not a bad handler: they are limited, each by itself."""
_EXAMPLES: Final = 3


class Verdicts(NamedTuple):
    """What halted a partition."""

    invalid: int
    sources: int
    examples: list[str]
    """Those of the sources that most of it is from."""


class InvalidWindow:
    """The invalid ones among the last ``RECORDS`` records, numbered by the order in which they were placed.

    Verdicts come before the release that covers their records and may name a record far ahead (one over the size limit
    is judged when it is placed); it counts once the window has reached it. A record counts once, however often it is
    judged: that is the caller's to know.
    """

    def __init__(self) -> None:
        self._end = 0
        self._inside: list[tuple[int, bytes]] = []
        self._ahead: list[tuple[int, bytes]] = []
        self._sources: Counter[bytes] = Counter()

    def judged(self, ordinal: int, source: bytes) -> None:
        """The record with this number is invalid, and everything before it was looked at."""
        self.judged_ahead(ordinal, source)
        self.reached(max(ordinal + 1, self._end))

    def judged_ahead(self, ordinal: int, source: bytes) -> None:
        """The record with this number is invalid; what lies before it was maybe not looked at yet."""
        heapq.heappush(self._ahead, (ordinal, source))

    def reached(self, end: int) -> None:
        """All records with a lower number than ``end`` were looked at."""
        self._end = max(self._end, end)
        while self._ahead and self._ahead[0][0] < self._end:
            one = heapq.heappop(self._ahead)
            heapq.heappush(self._inside, one)
            self._sources[one[1]] += 1
        while self._inside and self._inside[0][0] < self._end - RECORDS:
            _, source = heapq.heappop(self._inside)
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

    def verdicts(self) -> Verdicts | None:
        """What is to halt the partition; None = it goes on."""
        if len(self._inside) <= INVALID_MAX or len(self._sources) < SOURCES_MIN:
            return None
        examples = [source.decode(errors="replace") for source, _ in self._sources.most_common(_EXAMPLES)]
        return Verdicts(len(self._inside), len(self._sources), examples)

    def clear(self) -> None:
        """Begin anew: what was judged is forgotten."""
        self._inside.clear()
        self._ahead.clear()
        self._sources.clear()
