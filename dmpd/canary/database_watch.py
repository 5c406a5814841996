"""What the database says of a crowd: when rows came while the run goes on, and all of them at its end.

Times of rows are those at which the Cloud Registry wrote them, by the database's clock, turned into the monotonic clock
of this machine. Behind a step of the database's clock the times by it mean nothing for a while: then a row counts as
written when it was seen, half a second later at most.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from dmpd.canary import store
from dmpd.canary.plan import Plan, number_of, rae_of, session_of
from dmpd.canary.rows import FoundRow
from dmpd.canary.wall_clock import WallClock
from dmpd.canary.watch_thread import WatchThread
from dmpd.model.record import CORE_FIELDS
from dmpd.runtime.database import Connection, DatabaseError
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import DatabaseSettings

_LOOK_S: Final = 0.5
_BACK_S: Final = 30.0
"""Each look goes so far back: a row is seen after its transaction, its time is that of the statement that wrote it."""

_CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_ROWS: Final = """
SELECT rae, session::text, rev, extract(epoch FROM applied_at)::float8 FROM device_session
WHERE rae = ANY(%b::text[]) AND epoch = %s AND applied_at > to_timestamp(%s)
"""
_OTHERS: Final = """
SELECT d.rae, d.session::text, d.rev, extract(epoch FROM applied_at - changed_at)::float8 FROM device_session AS d
JOIN unnest(%b::text[], %b::text[]::uuid[]) AS k (rae, session) ON d.rae = k.rae AND d.session = k.session
"""
_FULL: Final = f"""
SELECT rae, session::text, rev, stale, closed_at IS NOT NULL, {", ".join(CORE_FIELDS)} FROM device_session
WHERE rae = ANY(%b::text[]) AND epoch = %s
"""  # noqa: S608 - the names of our own columns
_ATTRIBUTES: Final = "SELECT rae, session::text, name, value FROM device_attribute WHERE rae = ANY(%b::text[])"
_INTERFACES: Final = (
    "SELECT rae, session::text, mac FROM device_interface WHERE rae = ANY(%b::text[]) ORDER BY rae, session, place"
)
_EVENTS: Final = "SELECT rae, session, seq, code, detail FROM device_event WHERE rae = ANY(%b::text[]) AND epoch = %s"

_log = logging.getLogger(__name__)


class DatabaseWatch:
    """``start``, then read; ``stop``. A thread with a connection of its own, made again whenever it is lost."""

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        plan: Plan,
        others: Callable[[], Sequence[tuple[str, str]]],
        look_s: float = _LOOK_S,
    ) -> None:
        """``others`` names device sessions of RAEs that are no canaries, to look at how long their changes take.

        ``look_s``: between two looks, each of which takes as long as the crowd is large (3,000: up to half a second
        on a busy machine). A rev that is written over between two counts with the next one.
        """
        self._settings = settings
        self._plan = plan
        self._others = others
        self._look_s = look_s
        self._raes = [rae_of(number) for number in plan.numbers]
        self._sessions = {(rae_of(number), session_of(plan.run, number)): number for number in plan.numbers}
        self._thread = WatchThread("looks at the rows", self._run)
        self._clock = WallClock()
        self._looked_s = time.monotonic()
        self._others_seen: set[tuple[str, str, int]] = set()
        self.applied_ns: dict[tuple[int, int], int] = {}
        """By client and rev: when the row was written, monotonic. Revs that were folded into a later one are absent."""
        self.revs: dict[int, int] = {}
        """By client: the highest rev seen in its row."""
        self.others_s: list[tuple[float, float]] = []
        """``(monotonic second, change to row in seconds)`` of rows of other RAEs."""
        self.trouble: str | None = None
        """What the last look failed of; ``None`` after one that did not."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                with store.connected(self._settings) as connection:
                    while not stopping.wait(self._look_s):
                        self._look(connection)
                        self.trouble = None
            except (DatabaseError, UnavailableError) as error:
                if self.trouble is None:
                    _log.warning("rows: %s", error)
                self.trouble = str(error).strip()
                stopping.wait(_LOOK_S)

    def _look(self, connection: Connection) -> None:
        began_s = time.monotonic()
        since_s = self._ask_clock(connection) - _BACK_S - (began_s - self._looked_s)
        rows = connection.execute(_ROWS, (self._raes, self._plan.epoch, since_s)).fetchall()
        now_s = time.monotonic()
        for rae, session, rev, applied_s in rows:
            number = self._sessions.get((rae, session))
            if number is not None and rev > self.revs.get(number, 0):
                self.revs[number] = rev
                self.applied_ns[number, rev] = int(self._written_s(applied_s, now_s) * 1e9)
        self._look_at_others(connection)
        self._looked_s = began_s

    def _ask_clock(self, connection: Connection) -> float:
        """The least that the database's clock can have said since the last look, but for the time that has passed."""
        said_s, before_s = self._clock.said_s, time.monotonic()
        row = connection.execute(_CLOCK).fetchone()
        assert row is not None
        self._clock.note(row[0], before_s, time.monotonic())
        return float(row[0]) if said_s is None else min(row[0], said_s)

    def _written_s(self, applied_s: float, now_s: float) -> float:
        """When a row that is seen for the first time was written, monotonic."""
        earliest_s = self._looked_s - _BACK_S
        stepped_s = self._clock.stepped_s
        if stepped_s is not None and stepped_s > earliest_s:
            return now_s
        written_s = self._clock.monotonic_s(applied_s)
        return written_s if earliest_s <= written_s <= now_s else now_s

    def _look_at_others(self, connection: Connection) -> None:
        others = self._others()
        if not others:
            return
        columns = ([rae for rae, _ in others], [session for _, session in others])
        now_s = time.monotonic()
        for rae, session, rev, took_s in connection.execute(_OTHERS, columns).fetchall():
            if (rae, session, rev) not in self._others_seen:
                self._others_seen.add((rae, session, rev))
                self.others_s.append((now_s, took_s))


def read_rows(connection: Connection, plan: Plan) -> dict[int, FoundRow]:
    """Everything of this run's device sessions, by client. Blocks; raises ``DatabaseError``."""
    raes = [rae_of(number) for number in plan.numbers]
    mine = {rae_of(number): session_of(plan.run, number) for number in plan.numbers}
    attributes: dict[str, dict[str, Any]] = {}
    for rae, session, name, value in connection.execute(_ATTRIBUTES, (raes,)).fetchall():
        if mine[rae] == session:
            attributes.setdefault(rae, {})[name] = value
    macs: dict[str, list[str]] = {}
    for rae, session, mac in connection.execute(_INTERFACES, (raes,)).fetchall():
        if mine[rae] == session:
            macs.setdefault(rae, []).append(mac)
    events: dict[str, list[tuple[int, str, Any]]] = {}
    for rae, session, seq, code, detail in connection.execute(_EVENTS, (raes, plan.epoch)).fetchall():
        if mine[rae] == session:
            events.setdefault(rae, []).append((seq, code, detail))
    found: dict[int, FoundRow] = {}
    for rae, session, rev, stale, closed, *values in connection.execute(_FULL.encode(), (raes, plan.epoch)).fetchall():
        if mine[rae] == session:
            found[number_of(rae)] = FoundRow(
                number=number_of(rae),
                rev=rev,
                stale=stale,
                closed=closed,
                fields=dict(zip(CORE_FIELDS, values, strict=True)),
                attributes=attributes.get(rae, {}),
                macs=macs.get(rae, []),
                events=events.get(rae, []),
            )
    return found


def still_open(connection: Connection, plan: Plan) -> list[str]:
    """RAEs of this run whose device session is not closed. Blocks; raises ``DatabaseError``."""
    raes = [rae_of(number) for number in plan.numbers]
    rows = connection.execute(
        "SELECT rae FROM device_session WHERE rae = ANY(%b::text[]) AND epoch = %s AND closed_at IS NULL ORDER BY rae",
        (raes, plan.epoch),
    ).fetchall()
    return [rae for (rae,) in rows]
