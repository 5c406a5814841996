"""Collects the outbox rows that are safe in Kafka, and says when to tell which RAE. Pure.

Selective and stateless: an ack names exactly the rows confirmed since the last one, never "all up to n", so the bridge
needs to know nothing of earlier runs. A lost ack is repaired by the RAE, which sends the row again.
"""

from collections.abc import Iterable
from typing import NamedTuple

Ranges = tuple[tuple[int, int], ...]


class StoredRows(NamedTuple):
    """Content of one ``durable``: inclusive ranges, ascending, apart from each other."""

    rae: str
    epoch: int
    ranges: Ranges


class _Batch:
    __slots__ = ("due_s", "rows")

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.rows: list[int] = []


class DurableAcks:
    """Batches per (RAE, epoch). Bounded: a batch ends at ``rows_max`` rows or ``delay_s`` after its first."""

    def __init__(self, *, delay_s: float, rows_max: int) -> None:
        assert rows_max >= 1
        self._delay_s = delay_s
        self._rows_max = rows_max
        self._batches: dict[tuple[str, int], _Batch] = {}

    def __len__(self) -> int:
        """How many acks wait for their time."""
        return len(self._batches)

    def stored(self, rae: str, epoch: int, seq: int, *, now_s: float) -> StoredRows | None:
        """Note a row (duplicates and dead-lettered ones too); returns the ack that became due by it, if any."""
        batch = self._batches.get((rae, epoch))
        if batch is None:
            batch = self._batches[rae, epoch] = _Batch(now_s + self._delay_s)
        batch.rows.append(seq)
        if len(batch.rows) < self._rows_max:
            return None
        del self._batches[rae, epoch]
        return StoredRows(rae, epoch, ranges_of(batch.rows))

    def due(self, now_s: float) -> list[StoredRows]:
        """Take the acks whose time has come, oldest first."""
        taken: list[StoredRows] = []
        # All wait equally long and a dict keeps insertion order, so the first one that is not due ends the search.
        for (rae, epoch), batch in self._batches.items():
            if batch.due_s > now_s:
                break
            taken.append(StoredRows(rae, epoch, ranges_of(batch.rows)))
        for ack in taken:
            del self._batches[ack.rae, ack.epoch]
        return taken

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
