"""Which stale device sessions are asked for a checkpoint now. Pure: pages of rows in, rows to ask out.

All stale rows of the partitions of this instance are gone through in key order, page after page, round and round: a
*pass*. Asked is what is due by its backoff, as long as the bucket has tokens; when it is empty the pass goes on from
there the next time, so that no row waits for ever behind others. In one pass no RAE is asked more often than the bucket
has tokens at once: what it has beyond that is left to the next pass, so that a RAE waits for the number of the others
and not for what one of them has. A RAE that cannot be reached is not asked (a request reaches a connected RAE or
nobody) and costs its sessions no backoff: they are asked when it is back.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from dmpd.cloud_registry.ask_book import AskBook
from dmpd.runtime.token_bucket import TokenBucket

Cursor = tuple[int, str, str]
"""``(partition, rae, session)``: a pass goes on behind it."""
BEGIN: Final[Cursor] = (-1, "", "00000000-0000-0000-0000-000000000000")
"""Before every row."""


class StaleRow(NamedTuple):
    """One stale device session that is neither closed nor absent."""

    partition: int
    rae: str
    session: str
    reachable: bool
    """Of its RAE, now; also true of a RAE of which no status was ever heard."""

    @property
    def cursor(self) -> Cursor:
        return self.partition, self.rae, self.session


class Backlog(Struct, frozen=True, kw_only=True):
    """What the last whole pass found. ``stale`` is the sum of the others."""

    stale: int = 0
    asked: int = 0
    """In this pass."""
    waiting: int = 0
    """Asked before, not due again."""
    unreachable: int = 0
    """Their RAE is away."""
    later: int = 0
    """Due, but their RAE had its share of this pass."""


class Reconciliation:
    """The state of one instance. One thread."""

    def __init__(
        self, *, per_s: float, first_s: float, max_s: float, random: Callable[[], float], page_rows: int = 1000
    ) -> None:
        self.page_rows = page_rows
        self.backlog = Backlog()
        """Of the last pass that was completed."""
        self.passes = 0
        """Completed so far."""
        self._book: AskBook[tuple[str, str]] = AskBook(first_s=first_s, max_s=max_s, random=random)
        burst = max(1.0, per_s)
        self._bucket = TokenBucket(per_s, burst=burst)
        self._share = int(burst)
        """Of one RAE in one pass. A RAE that is alone loses nothing by it: a round has no more tokens."""
        self._cursor = BEGIN
        self._rae, self._asked_of_rae = "", 0
        self._asked = self._waiting = self._unreachable = self._later = 0
        self._begin()

    @property
    def cursor(self) -> Cursor:
        """Read the next page, of ``page_rows`` rows, behind this."""
        return self._cursor

    def take(self, page: Sequence[StaleRow], now_s: float) -> Iterator[StaleRow]:
        """Yield of ``page`` what to ask now; each counts as asked. Go through it to the end.

        ``page`` is what lies behind ``cursor``, in order; a short one is the end of the pass. ``cursor`` moves behind
        what was dealt with.
        """
        for row in page:
            key = (row.rae, row.session)
            if not row.reachable:
                self._unreachable += 1
            elif not self._book.is_due(key, now_s):
                self._waiting += 1
            elif self._share_of(row.rae) == 0:
                self._later += 1
            elif self._bucket.take(now_s):
                self._asked += 1
                self._asked_of_rae += 1
                self._book.asked(key, now_s)
                yield row
            else:
                return
            self._book.see(key)
            self._cursor = row.cursor
        if len(page) < self.page_rows:
            self._end()

    def _share_of(self, rae: str) -> int:
        """How often ``rae`` may still be asked in this pass. Its rows of one partition lie side by side."""
        if rae != self._rae:
            self._rae, self._asked_of_rae = rae, 0
        return self._share - self._asked_of_rae

    def _begin(self) -> None:
        self._cursor = BEGIN
        self._rae, self._asked_of_rae = "", 0
        self._asked = self._waiting = self._unreachable = self._later = 0
        self._book.begin_pass()

    def _end(self) -> None:
        self._book.end_pass()
        self.passes += 1
        self.backlog = Backlog(
            stale=self._asked + self._waiting + self._unreachable + self._later,
            asked=self._asked,
            waiting=self._waiting,
            unreachable=self._unreachable,
            later=self._later,
        )
        self._begin()
