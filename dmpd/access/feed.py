"""Asks the database what is granted, again and again, and writes the audit; on a thread, so that ends wait for nothing.

A database that is away, or frozen, is asked again for ever; what it said last stays in force meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from msgspec import structs

from dmpd.access import audit, exchange, metrics
from dmpd.access.dynsec import PRINCIPAL
from dmpd.access.journal import Journal
from dmpd.access.reconciler import Reconciler, boot_s
from dmpd.access.settings import AccessSettings
from dmpd.runtime.database import Connection, DatabaseError, connect
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import DatabaseSettings

_PRESENCE_INTERVAL_S: Final = 2.0
_EVENTS_PER_TURN: Final = 500
_CONNECT_TIMEOUT_S: Final = 3

_log = logging.getLogger(__name__)


class SchemaProblemError(UnavailableError):
    """The database's tables are not those that this program knows."""


CheckSchema = Callable[[Connection], None]
"""Raises ``SchemaProblemError``."""


class Feed:
    """Between one database and one ``Reconciler``. ``run`` on the loop; its turns on a thread, one at a time."""

    def __init__(
        self,
        settings: AccessSettings,
        database: DatabaseSettings,
        *,
        reconciler: Reconciler,
        journal: Journal,
        wake: asyncio.Event,
        check_schema: CheckSchema,
    ) -> None:
        """``wake``: set when a line of the audit waits."""
        self._settings = settings
        self._database = structs.replace(
            database,
            statement_timeout_s=settings.statement_timeout_s,
            connect_timeout_s=min(database.connect_timeout_s, _CONNECT_TIMEOUT_S),
        )
        self._reconciler = reconciler
        self._journal = journal
        self._wake = wake
        self._check_schema = check_schema
        self._connection: Connection | None = None
        self._version = -1
        self._read_s = -1e9
        self._present_s = -1e9
        self._words: audit.LastWords | None = None
        self._knows_words = False
        self.problem: str | None = "the database was not reached yet"
        self.asked = asyncio.Event()
        """The database was asked once, and it answered or it did not."""
        self.answered_s: float | None = None

    async def run(self) -> None:
        """Ask, until cancelled."""
        try:
            while True:
                try:
                    snapshot = await asyncio.to_thread(self._turn, self._reconciler.status())
                except (DatabaseError, UnavailableError) as error:
                    metrics.database_errors.inc()
                    if self.problem is None:
                        _log.warning("the database is away, grants end as they are known: %s", error)
                    self.problem = f"database: {str(error).strip() or type(error).__name__}"
                    self._drop()
                else:
                    self.problem = None
                    self.answered_s = boot_s()
                    words, self._words = self._words, None
                    if snapshot is not None:
                        self._reconciler.use(snapshot)
                    if words is not None:
                        self._reconciler.recall(words)
                self.asked.set()
                await self._pause()
        finally:
            self._drop()

    async def _pause(self) -> None:
        woken = asyncio.ensure_future(self._wake.wait())
        try:  # no wait_for: in Python 3.11 it loses a cancellation that comes with the wake-up, and the end with it
            await asyncio.wait((woken,), timeout=self._settings.poll_interval_s)
        finally:
            woken.cancel()
        if self._wake.is_set() and self.problem is not None:  # a database that is away is not asked more often for that
            await asyncio.sleep(self._settings.poll_interval_s)
        self._wake.clear()

    def _turn(self, status: dict[str, Any]) -> exchange.Snapshot | None:
        """Write what waits, look; on the thread. Raises ``DatabaseError``, ``UnavailableError``."""
        connection = self._connection or self._open()
        self._write(connection, status)
        asked_s = boot_s()
        version, now = exchange.version(connection)
        self._reconciler.clock.sync(now, asked_s=asked_s, answered_s=boot_s())
        found = None
        if version != self._version or time.monotonic() - self._read_s >= self._settings.full_read_interval_s:
            found = exchange.snapshot(connection)
            self._version, self._read_s = found.version, time.monotonic()
        if not self._knows_words:  # the last thing: nothing may be written between it and its use
            self._words, self._knows_words = audit.last_words(connection, PRINCIPAL), True
        return found

    def _write(self, connection: Connection, status: dict[str, Any]) -> None:
        events = self._journal.next(_EVENTS_PER_TURN)
        if events:
            audit.write_events(connection, events)
            self._journal.written(len(events))
        is_all = not self._journal.next(1)
        if is_all and self._journal.has_gap:
            self._journal.has_gap = self._knows_words = False
        kicks = list(self._reconciler.kicks_to_forget)
        if kicks:
            exchange.kicked(connection, kicks)
            del self._reconciler.kicks_to_forget[: len(kicks)]
        if time.monotonic() - self._present_s >= _PRESENCE_INTERVAL_S:
            problem = status["problem"] or ""
            is_recorded = is_all and self._knows_words and not problem
            exchange.write_presence(connection, PRINCIPAL, problem, status, is_recorded=is_recorded)
            self._present_s = time.monotonic()

    def _open(self) -> Connection:
        connection = connect(self._database, application="dmpd-access")
        try:
            connection.autocommit = True
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._version = -1
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
