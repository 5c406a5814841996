"""The outbox's decisions, pure: which row goes next, which again, and what gives way when too much waits.

A row leaves the outbox only when the bridge says ``durable``: a PUBACK proves no more than the broker's memory. The
uplink moves the bytes, the store keeps the rows; neither decides. ``now_s`` is monotonic, ``now_ms`` the wall clock.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from dmpd.local_registry.settings import OutboxSettings

WINDOW_ROWS_MAX: Final = 64
WINDOW_BYTES_MAX: Final = 1 << 20
PROBE_FIRST_S: Final = 30.0
PROBE_MAX_S: Final = 600.0
ABSENT_FIRST_S: Final = 1.0
NO_SUBSCRIBER: Final = 0x10

REPLACEABLE: Final = frozenset({"change", "checkpoint"})
"""Kinds that one later checkpoint of their session makes needless."""


class Row(NamedTuple):
    """One outbox row. ``payload`` carries ``epoch``, which is restamped when it is not the store's any more."""

    seq: int
    session: str
    kind: str
    epoch: int
    at_ms: int
    payload: bytes
    requester: str | None = None
    """Of a response: the last level of its topic."""


class _Flight:
    """A row in the window. ``sent_at_s`` is None while it has to be sent (again)."""

    __slots__ = ("first_sent_s", "row", "sent_at_s", "unacknowledged")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.sent_at_s: float | None = None
        self.first_sent_s: float | None = None
        self.unacknowledged = False


class Window:
    """The oldest rows not yet durable: at most 64, or 1 MiB. Owned by one RAE's event loop.

    Rules: in order; all again on a new connection; a first row without ``durable`` for 30 s goes alone, as a probe that
    backs off to 10 min (a ``durable`` can be lost while others arrive); once a row becomes durable, every row last sent
    more than 30 s ago goes again. PUBACK 0x10 (nobody subscribed: the bridge is away) holds everything but one probe
    back, or later rows would overtake. Other refusals count as sent and not delivered.

    Invariants: rows are in ascending seq and each was loaded once; at most one probe is unanswered.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._flights: dict[int, _Flight] = {}
        self.bytes_held = 0
        self._probe_s = PROBE_FIRST_S
        self._probed_s: float | None = None
        self._absent_s: float | None = None
        self._absent_until_s = 0.0
        self._durable_at_s: float | None = None
        self.loaded_through = 0
        """Highest seq ever loaded: rows up to it are frozen, they may be in somebody's hands already."""

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def room(self) -> tuple[int, int]:
        """(rows, bytes) that may still be loaded; one row of any size fits an empty window."""
        if not self._flights:
            return WINDOW_ROWS_MAX, WINDOW_BYTES_MAX
        return max(0, WINDOW_ROWS_MAX - len(self._flights)), max(0, WINDOW_BYTES_MAX - self.bytes_held)

    @property
    def oldest_at_ms(self) -> int | None:
        """When the first row was written; None = nothing is loaded."""
        return next(iter(self._flights.values())).row.at_ms if self._flights else None

    @property
    def bridge_absent(self) -> bool:
        """Whether the last answer was that nobody subscribes to our topics."""
        return self._absent_s is not None

    def open(self, now_s: float) -> bool:
        """Whether anything at all may be sent now: False while waiting for the bridge to subscribe again."""
        return self._absent_s is None or now_s >= self._absent_until_s

    def load(self, rows: Iterable[Row]) -> int:
        """Take ``rows``, ascending and beyond ``loaded_through``, as far as there is room; return how many."""
        taken = 0
        for row in rows:
            rows_free, bytes_free = self.room
            if not rows_free or (self._flights and len(row.payload) > bytes_free):
                break
            assert row.seq > self.loaded_through
            self._flights[row.seq] = _Flight(row)
            self.bytes_held += len(row.payload)
            self.loaded_through = row.seq
            taken += 1
        return taken

    def connected(self) -> None:
        """A new connection: nothing is known of what the old one delivered, so all go again, oldest first."""
        for flight in self._flights.values():
            flight.sent_at_s = None
            flight.unacknowledged = False
        self._absent_s = None
        self._probe_s = PROBE_FIRST_S
        self._probed_s = None

    def again(self) -> None:
        """All that the broker has answered for go again: there is no time left to wait for the 30 s rule."""
        for flight in self._flights.values():
            if not flight.unacknowledged:
                flight.sent_at_s = None

    def due(self, now_s: float) -> Row | None:
        """The row to send now, or None. The caller sends it and calls ``sent``."""
        if not self._flights:
            return None
        first = next(iter(self._flights.values()))
        if self._absent_s is not None:
            waiting = any(flight.unacknowledged for flight in self._flights.values())
            return None if waiting or now_s < self._absent_until_s else first.row
        for flight in self._flights.values():
            if flight.sent_at_s is None:
                return flight.row
        assert first.sent_at_s is not None
        last_s = max(first.sent_at_s, self._probed_s or first.sent_at_s)
        return first.row if not first.unacknowledged and now_s >= last_s + self._probe_s else None

    def sent(self, seq: int, now_s: float) -> None:
        """The row was handed to the connection."""
        flight = self._flights[seq]
        if flight.sent_at_s is not None and self._absent_s is None:
            self._probed_s = now_s
            self._probe_s = min(PROBE_MAX_S, self._probe_s * 2) * (0.75 + self._random() / 4)
        flight.sent_at_s = now_s
        flight.unacknowledged = True
        if flight.first_sent_s is None:
            flight.first_sent_s = now_s

    def answered(self, seq: int, reason_code: int, now_s: float) -> None:
        """The broker answered. Success and errors alike leave the row waiting for ``durable``."""
        flight = self._flights.get(seq)
        if flight is not None:
            flight.unacknowledged = False
        if reason_code == NO_SUBSCRIBER:
            if flight is not None:
                flight.sent_at_s = None
            self.nobody_there(now_s)
        else:
            self._absent_s = None

    def nobody_there(self, now_s: float) -> None:
        """The broker has nobody for our topics: wait, 1 s doubling to 30 s, then try the first row."""
        if self._absent_s is not None and now_s < self._absent_until_s:
            return
        self._absent_s = ABSENT_FIRST_S if self._absent_s is None else min(PROBE_FIRST_S, self._absent_s * 2)
        self._absent_until_s = now_s + self._absent_s * (0.75 + self._random() / 4)

    def durable(self, stored: Sequence[tuple[int, int]], now_s: float) -> list[Row]:
        """Take out and return the rows that the bridge has stored (inclusive ranges, this epoch's).

        What is not in the window is not ours to believe: it stays, and at worst is sent once more.
        """
        gone = [seq for seq in self._flights if any(first <= seq <= last for first, last in stored)]
        rows = [self._flights.pop(seq).row for seq in gone]
        if not rows:
            return rows
        self.bytes_held -= sum(len(row.payload) for row in rows)
        self._durable_at_s = now_s
        self._absent_s = None
        self._probe_s = PROBE_FIRST_S
        self._probed_s = None
        for flight in self._flights.values():
            if flight.sent_at_s is not None and now_s - flight.sent_at_s > PROBE_FIRST_S and not flight.unacknowledged:
                flight.sent_at_s = None
        return rows

    def holding_back(self, now_s: float) -> bool:
        """Whether nothing becomes durable: then checkpoints, rosters and periodic statuses only add to the pile."""
        if self._absent_s is not None:
            return True
        if not self._flights:
            return False
        sent_s = next(iter(self._flights.values())).first_sent_s
        if sent_s is None:
            return False
        return now_s - max(sent_s, self._durable_at_s or sent_s) > PROBE_FIRST_S

    def clear(self) -> None:
        """Forget every row: the store was rebuilt, or begins a new epoch, and offers them anew."""
        self._flights.clear()
        self.bytes_held = 0
        self.loaded_through = 0


class Backlog(NamedTuple):
    """What waits unsent of one session: its replaceable rows, and whether its ``closed`` waits behind them."""

    session: str
    rows: int
    bytes: int
    oldest_ms: int


def sessions_to_coalesce(
    backlogs: Iterable[Backlog], *, rows: int, bytes_held: int, now_ms: int, bounds: OutboxSettings
) -> list[str]:
    """Whose unsent changes give way to one checkpoint (or, if closed, to their ``closed``).

    The longest backlogs first, until a tenth of the bound is free again; those over the age whatever the size.
    ``rows`` and ``bytes_held`` are the whole outbox.
    """
    oldest_ms = now_ms - int(bounds.age_max_s * 1000)
    over = rows > bounds.rows_max or bytes_held > bounds.bytes_max
    chosen = []
    for backlog in sorted(backlogs, key=lambda one: (-one.rows, one.session)):
        aged = backlog.oldest_ms < oldest_ms
        if aged or (over and backlog.rows > 1):
            chosen.append(backlog.session)
            rows -= backlog.rows - 1
            bytes_held -= backlog.bytes - backlog.bytes // max(1, backlog.rows)
            over = over and (rows > bounds.rows_max * 0.9 or bytes_held > bounds.bytes_max * 0.9)
    return chosen


def events_to_drop(events: int, bounds: OutboxSettings) -> int:
    """How many of the oldest unsent events are dropped (and counted): events may fill a tenth of the outbox."""
    return max(0, events - bounds.rows_max // 10)
