"""The outbox's decisions, pure: which row goes next, which again, and what gives way when too much waits.

A row leaves the outbox only when the bridge says ``durable``: a PUBACK proves no more than the broker's memory. The
uplink moves the bytes, the store keeps the rows; neither decides. ``now_s`` is monotonic, ``now_ms`` the wall clock.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from dmpd.local_registry.settings import OutboxSettings
from dmpd.local_registry.unproven import ASK_EACH, Unproven

WINDOW_ROWS_MAX: Final = 64
WINDOW_BYTES_MAX: Final = 1 << 20
PROBE_FIRST_S: Final = 30.0
PROBE_MAX_S: Final = 600.0
FASTER: Final = 15
"""Once a probe is answered the next one waits this much less: 2 s, in which the broker's queue would have moved on."""
ABSENT_FIRST_S: Final = 1.0
NO_SUBSCRIBER: Final = 0x10
REFUSED_FROM: Final = 0x80

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


class Sending(NamedTuple):
    """A row to send now. At QoS 0 goes what the broker acknowledged before: that it may keep, another copy not."""

    row: Row
    qos: int


class _Flight:
    """A row in the window. ``sent_at_s`` is None while it has to be sent (again)."""

    __slots__ = ("first_sent_s", "overtaken", "place", "row", "sent_after", "sent_at_s", "several", "unacknowledged")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.sent_at_s: float | None = None
        self.first_sent_s: float | None = None
        self.unacknowledged = False
        self.place = 0
        """Of its copy in the broker's queue; 0 = there is none."""
        self.sent_after = 0
        """The last place that was given when it was sent last, its own included."""
        self.several = False
        """It went more than once, so that a ``durable`` does not say which copy came through."""
        self.overtaken = False
        """Something sent after it is durable: its own ``durable``, or the row itself, was lost."""

    def is_old(self, now_s: float) -> bool:
        """Whether it was sent so long ago, and answered, that it may go again."""
        return self.sent_at_s is not None and not self.unacknowledged and now_s - self.sent_at_s >= PROBE_FIRST_S

    def renew(self) -> None:
        """As if never sent: nothing is known of it any more."""
        self.sent_at_s, self.place = None, 0
        self.unacknowledged = self.several = self.overtaken = False


class Window:
    """The oldest rows not yet durable: at most 64, or 1 MiB; and what the broker may hold. Owned by one event loop.

    Rules: in order; all again on a new connection. What something later has overtaken goes again after 30 s. Without
    any ``durable`` for 30 s the first row goes again, as a probe that backs off to 10 min; when one comes after a probe
    and no more follow, two rows go again, then four and so on. PUBACK 0x10 (nobody subscribed: the bridge is away)
    holds everything but one probe back, or later rows would overtake. Other refusals count as sent and not delivered.

    On one connection each row goes at QoS 1 once, and no message does while 66 are unproven (``unproven``): so much may
    lie in the broker's queue, however long Kafka is away. A RAE that connects again while nothing becomes durable
    does not begin anew either: it sends one row, and the others when that one became durable.

    Invariants: rows are in ascending seq and each was loaded once.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._flights: dict[int, _Flight] = {}
        self.bytes_held = 0
        self._unproven = Unproven()
        self._probe_s = PROBE_FIRST_S
        self._probe_at_s = 0.0
        self._round = 1
        """So many rows the next probe sends; 1 until a probe was answered."""
        self._probed = 0
        """So many the last one sent, 0 when something became durable since."""
        self._bridge_answers = False
        self._run = 0
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
        return self._first.row.at_ms if self._flights else None

    @property
    def bridge_absent(self) -> bool:
        """Whether the last answer was that nobody subscribes to our topics."""
        return self._absent_s is not None

    @property
    def broker_full(self) -> bool:
        """Whether the broker may hold all that it should: nothing more goes at QoS 1 but a last word."""
        return self._unproven.full

    @property
    def _first(self) -> _Flight:
        return next(iter(self._flights.values()))

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

    def connected(self, now_s: float, *, run: int) -> None:
        """A new connection, the RAE's ``run``-th: nothing is known of what the old one delivered.

        All go again, oldest first; while nothing becomes durable one does, for the broker may hold all of them.
        """
        self._run = run
        self._calm()
        self._probe_at_s = 0.0
        if self.stalled(now_s):
            for flight in self._flights.values():
                flight.unacknowledged = False
            if self._flights:
                first = self._first
                first.sent_at_s, first.place, first.several = None, 0, True
                self._probed = 1
        else:
            self._unproven.forget()
            for flight in self._flights.values():
                flight.renew()
        self._absent_s = None

    def again(self) -> None:
        """All that the broker has answered for go again: there is no time left to wait for the 30 s rule."""
        for flight in self._flights.values():
            if not flight.unacknowledged:
                flight.sent_at_s = None

    def due(self, now_s: float) -> Sending | None:
        """The row to send now, or None. The caller sends it and calls ``sent``."""
        if not self._flights:
            return None
        if self._absent_s is not None:
            waiting = any(flight.unacknowledged for flight in self._flights.values())
            return None if waiting or now_s < self._absent_until_s else Sending(self._first.row, 1)
        self._begin_round(now_s)
        for flight in self._flights.values():
            if flight.sent_at_s is None or (flight.overtaken and flight.is_old(now_s)):
                if flight.place:
                    return Sending(flight.row, 0)
                return Sending(flight.row, 1) if flight.several or not self._unproven.full else None
        return None

    def _begin_round(self, now_s: float) -> None:
        """Let the first rows go again if nothing became durable for long enough."""
        if now_s < self._probe_at_s or not self._first.is_old(now_s):
            return
        for flight in islice(self._flights.values(), self._round):
            if flight.is_old(now_s):
                flight.sent_at_s = None
        self._probed, self._round = self._round, 1
        self._back_off(now_s)

    def _back_off(self, now_s: float) -> None:
        self._probe_s = min(PROBE_MAX_S, max(PROBE_FIRST_S, self._probe_s * 2)) * (0.75 + self._random() / 4)
        self._probe_at_s = now_s + self._probe_s

    def _calm(self) -> None:
        self._probe_s, self._round, self._probed = PROBE_FIRST_S, 1, 0

    def sent(self, seq: int, qos: int, now_s: float) -> int:
        """The row was handed to the connection; returns its place for ``answered``, 0 at QoS 0."""
        flight = self._flights[seq]
        place = 0
        if qos:
            place = flight.place = self._unproven.sent(proves=not flight.several)
            flight.unacknowledged = True
        else:
            flight.several = True
        flight.sent_at_s = now_s
        flight.sent_after = self._unproven.last
        flight.overtaken = False
        if flight.first_sent_s is None:
            flight.first_sent_s = now_s
        return place

    def ask(self, now_s: float) -> int | None:
        """At which QoS a status should go, for its mark to tell what the bridge has taken; None = no need."""
        if self._absent_s is not None:
            return None
        stalled = self.stalled(now_s)
        if self._unproven.unasked >= ASK_EACH and not stalled and not self._unproven.full:
            return 1
        rows_tell = bool(self._flights) and self._first.sent_at_s is not None
        nothing_tells = self._unproven.full and self._unproven.oldest_mark_s is None
        if rows_tell or now_s < self._probe_at_s or not (stalled or nothing_tells):
            return None
        return 1 if self._bridge_answers else 0

    def next_mark(self) -> int:
        """For the ``seq`` of the next status."""
        return self._unproven.next_mark(self._run)

    def sent_other(self, now_s: float, *, qos: int = 1, mark: int = 0) -> int:
        """A message that is no row was handed over, ``mark`` = a status'; returns its place, 0 at QoS 0."""
        place = self._unproven.sent(proves=mark > 0) if qos else 0
        if mark:
            self._unproven.marked(mark, place, now_s)
            self._bridge_answers = False
        if not qos:
            self._probed = 1
            self._back_off(now_s)
        return place

    def answered(self, seq: int, place: int, reason_code: int, now_s: float) -> None:
        """The broker answered; ``seq`` 0 = no row. Success and errors alike leave a row waiting for ``durable``."""
        flight = self._flights.get(seq)
        if flight is not None:
            flight.unacknowledged = False
        if reason_code == NO_SUBSCRIBER or reason_code >= REFUSED_FROM:
            self._unproven.refused(place)
            if flight is not None and flight.place == place:
                flight.place = 0
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
        proof = self._unproven.durable(stored)
        gone = [seq for seq in self._flights if any(first <= seq <= last for first, last in stored)]
        flights = [self._flights.pop(seq) for seq in gone]
        if proof is None and not flights:
            return []
        self.bytes_held -= sum(len(flight.row.payload) for flight in flights)
        self._bridge_answers = proof is not None and proof.alive
        place = max([0 if proof is None else proof.place, *(one.place for one in flights if not one.several)])
        self._unproven.passed(place)
        for flight in self._flights.values():
            flight.overtaken |= flight.sent_after < place
        self._progress(now_s)
        return [flight.row for flight in flights]

    def _progress(self, now_s: float) -> None:
        self._durable_at_s = now_s
        self._absent_s = None
        if self._probed:
            self._round, self._probed = min(WINDOW_ROWS_MAX, 2 * self._probed), 0
            self._probe_s = PROBE_FIRST_S / FASTER
        if not any(flight.is_old(now_s) for flight in self._flights.values()):
            self._calm()
        self._probe_at_s = now_s + (self._probe_s if self._round > 1 else PROBE_FIRST_S)

    def stalled(self, now_s: float) -> bool:
        """Whether nothing became durable for 30 s of what waits for it."""
        since_s = [one for one in (self._unproven.oldest_mark_s,) if one is not None]
        if self._flights and self._first.first_sent_s is not None:
            since_s.append(self._first.first_sent_s)
        return bool(since_s) and now_s - max(min(since_s), self._durable_at_s or 0.0) > PROBE_FIRST_S

    def holding_back(self, now_s: float) -> bool:
        """Whether nothing becomes durable: then checkpoints, rosters and periodic statuses only add to the pile."""
        return self._absent_s is not None or self.stalled(now_s)

    def clear(self) -> None:
        """Forget every row: the store was rebuilt, or begins a new epoch, and offers them anew."""
        self._flights.clear()
        self._unproven.forget()
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
