"""Figures over all rows, for watching a lab or a small platform: counts, sums, and how long changes took.

Each question scans the table: fine for thousands of rows now and then, not for a fleet.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
from msgspec import Struct

from dmpd.runtime.database import Connection, DatabaseUnreachableError, connect
from dmpd.runtime.settings import DatabaseSettings


class Totals(Struct, frozen=True):
    """Over all RAEs: open device sessions, revs stored (closed sessions too), open sessions by state, stale ones."""

    rows: int
    revs: int
    by_state: Mapping[str, int]
    stale: int


class NamedDevice(NamedTuple):
    """A device for people to look at; the address, MAC and vendor are those of its first interface."""

    session: str
    hostname: str
    state: str
    ip: str | None
    mac: str
    vendor: str | None
    esn: str | None
    applied_at_s: float


class Figures:
    """Asks over one connection of its own, made at the first question and again after a failure. Not thread-safe.

    Every question blocks for its query and raises ``ConnectionError`` when the database does not answer.
    """

    def __init__(self, settings: DatabaseSettings, *, application: str) -> None:
        self._settings = settings
        self._application = application
        self._connection: Connection | None = None
        self._newest = datetime.fromtimestamp(0, UTC)

    def totals(self) -> Totals:
        rows = self._ask(
            "SELECT state, closed_at IS NULL, stale, count(*), sum(rev) FROM device_session GROUP BY 1, 2, 3"
        )
        by_state: dict[str, int] = {}
        for state, is_open, _stale, count, _revs in rows:
            if is_open:
                by_state[state] = by_state.get(state, 0) + count
        return Totals(
            rows=sum(by_state.values()),
            revs=sum(int(revs) for *_, revs in rows),
            by_state=by_state,
            stale=sum(count for _, is_open, stale, count, _ in rows if is_open and stale),
        )

    def delays_ms(self) -> list[float]:
        """From the change on the RAE to its row, of every row written since the last call; the RAE's clock counts."""
        rows = self._ask(
            "SELECT applied_at, extract(epoch FROM applied_at - changed_at) * 1000 FROM device_session "
            "WHERE applied_at > %s",
            self._newest,
        )
        self._newest = max((applied_at for applied_at, _ in rows), default=self._newest)
        return [float(delay_ms) for _, delay_ms in rows]

    def named_devices(self, rae: str) -> list[NamedDevice]:
        """The open device sessions of one RAE that have a host name, by it."""
        rows = self._ask(
            "SELECT d.session::text, i.hostname, d.state, i.ip4, i.mac, coalesce(d.manufacturer, i.oui_vendor), d.esn, "
            "extract(epoch FROM d.applied_at)::float8 "
            "FROM device_session d JOIN device_interface i USING (rae, session) "
            "WHERE d.rae = %s AND d.closed_at IS NULL AND i.place = 0 AND i.hostname IS NOT NULL ORDER BY i.hostname",
            rae,
        )
        return [NamedDevice(*row) for row in rows]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, statement: str, *values: object) -> Sequence[tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._connection = connect(self._settings, application=self._application)
                self._connection.autocommit = True
            return self._connection.execute(statement.encode(), values).fetchall()
        except (psycopg.Error, DatabaseUnreachableError) as error:
            self.close()
            raise ConnectionError(str(error)) from error
