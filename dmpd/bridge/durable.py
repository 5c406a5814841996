"""Collects the outbox rows that are safe in Kafka, and says when to tell which RAE. Pure.

Selective and stateless: an ack names exactly the rows confirmed since the last one, never "all up to n", so the bridge
needs to know nothing of earlier runs. A lost ack is repaired by the RAE, which sends the row again.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

Ranges = tuple[tuple[int, int], ...]


class StoredRows(NamedTuple):
    """Content of one ``durable``: inclusive ranges, ascending, apart from each other."""

    rae: str
    epoch: int
    ranges: Ranges
    since_s: float
    """When the bridge received the oldest of these rows."""


class Lag(NamedTuple):
    """How long the oldest row of a RAE has waited to be told durable, since the bridge received it."""

    rae: str
    lag_s: float


class _Batch:
    __slots__ = ("due_s", "rows", "since_s")

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.since_s = due_s
        self.rows: list[int] = []


class DurableAcks:
    """Batches per (RAE, epoch). Bounded: a batch ends at ``rows_max`` rows or ``delay_s`` after its first."""

    def __init__(self, *, delay_s: float, rows_max: int) -> None:
        assert rows_max >= 1
        self._delay_s = delay_s
        self._rows_max = rows_max
        self._batches: dict[tuple[str, int], _Batch] = {}
        self._on_the_way: dict[tuple[str, int, int], float] = {}

    def __len__(self) -> int:
        """How many acks wait for their time."""
        return len(self._batches)

    def received(self, rae: str, epoch: int, seq: int, *, now_s: float) -> None:
        """Note a row that is on its way to Kafka; the first of several receipts counts."""
        self._on_the_way.setdefault((rae, epoch, seq), now_s)

    def forget_received(self) -> None:
        """The rows on their way will not be reported: the producer is gone."""
        self._on_the_way.clear()

    def stored(self, rae: str, epoch: int, seq: int, *, now_s: float) -> StoredRows | None:
        """Note a row (duplicates and dead-lettered ones too); returns the ack that became due by it, if any."""
        batch = self._batches.get((rae, epoch))
        if batch is None:
            batch = self._batches[rae, epoch] = _Batch(now_s + self._delay_s)
        batch.rows.append(seq)
        batch.since_s = min(batch.since_s, self._on_the_way.pop((rae, epoch, seq), now_s))
        if len(batch.rows) < self._rows_max:
            return None
        del self._batches[rae, epoch]
        return StoredRows(rae, epoch, ranges_of(batch.rows), batch.since_s)

    def due(self, now_s: float) -> list[StoredRows]:
        """Take the acks whose time has come, oldest first."""
        taken: list[StoredRows] = []
        # All wait equally long and a dict keeps insertion order, so the first one that is not due ends the search.
        for (rae, epoch), batch in self._batches.items():
            if batch.due_s > now_s:
                break
            taken.append(StoredRows(rae, epoch, ranges_of(batch.rows), batch.since_s))
        for ack in taken:
            del self._batches[ack.rae, ack.epoch]
        return taken

    def worst(self, count: int, now_s: float) -> list[Lag]:
        """The ``count`` RAEs that have waited longest, longest first."""
        since_s: dict[str, float] = {}
        for (rae, _, _), received_s in self._on_the_way.items():  # in the order of receipt: a RAE's first is its oldest
            since_s.setdefault(rae, received_s)
            if len(since_s) == count:
                break
        for (rae, _), batch in self._batches.items():
            since_s[rae] = min(since_s.get(rae, batch.since_s), batch.since_s)
        oldest = heapq.nsmallest(count, since_s.items(), key=lambda one: one[1])
        return [Lag(rae, now_s - received_s) for rae, received_s in oldest]

    def take_all(self) -> list[StoredRows]:
        """Take every ack, due or not: for the end."""
        return self.due(float("inf"))


def ranges_of(rows: Iterable[int]) -> Ranges:
    """``rows`` in any order, with duplicates, as the fewest inclusive ranges."""
    ranges: list[tuple[int, int]] = []
    for row in sorted(set(rows)):
        if ranges and ranges[-1][1] == row - 1:
            ranges[-1] = (ranges[-1][0], row)
        else:
            ranges.append((row, row))
    return tuple(ranges)
