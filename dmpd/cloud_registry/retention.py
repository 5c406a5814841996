"""Removes what is old: events, tombstones, all that canaries left, grants and their audit. A thread of the parent.

Small batches, each a transaction of its own that waits for no lock (what another holds is left for the next time) and
is followed by a rest as long as it took: the sink never waits for more than one of them. Several instances may remove
at once. Ages are by the database's clock; by ``now()``, because no index is searched by ``clock_timestamp()``.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, LiteralString, NamedTuple

from dmpd.cloud_registry import metrics
from dmpd.cloud_registry.settings import RetentionSettings
from dmpd.runtime.database import Connection, DatabaseError
from dmpd.runtime.errors import UnavailableError

_CANARIES_AT_ONCE: Final = 50
_JOIN_S: Final = 2.0

_OLD_EVENTS: Final[LiteralString] = """
DELETE FROM device_event AS e
USING (
    SELECT rae, session, at, seq, code FROM device_event
    WHERE recorded_at < now() - %s * INTERVAL '1 hour' ORDER BY recorded_at LIMIT %s FOR UPDATE SKIP LOCKED
) AS old
WHERE e.rae = old.rae AND e.session = old.session AND e.at = old.at AND e.seq = old.seq AND e.code = old.code
"""
_OLD_TOMBSTONES: Final[LiteralString] = """
SELECT rae, session::text FROM device_session
WHERE closed_at < now() - %s * INTERVAL '1 hour' ORDER BY closed_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
_CANARIES: Final[LiteralString] = """
WITH RECURSIVE s AS (
    (SELECT rae FROM device_session ORDER BY rae LIMIT 1)
    UNION ALL
    SELECT (SELECT t.rae FROM device_session AS t WHERE t.rae > s.rae ORDER BY t.rae LIMIT 1)
    FROM s WHERE s.rae IS NOT NULL
), e AS (
    (SELECT rae FROM device_event ORDER BY rae LIMIT 1)
    UNION ALL
    SELECT (SELECT t.rae FROM device_event AS t WHERE t.rae > e.rae ORDER BY t.rae LIMIT 1)
    FROM e WHERE e.rae IS NOT NULL
)
SELECT rae FROM (SELECT rae FROM rae UNION SELECT rae FROM s UNION SELECT rae FROM e) AS names
WHERE rae LIKE 'canary-%' ORDER BY rae
"""
"""Of whatever there is, hopping from one RAE to the next in the keys: a canary that ended before its first status, or
whose row went before its last event, has no row of its own."""
_CANARY_SESSIONS: Final[LiteralString] = """
SELECT rae, session::text FROM device_session
WHERE rae = ANY(%b::text[]) AND applied_at < now() - %s * INTERVAL '1 hour'
ORDER BY rae, session LIMIT %s FOR UPDATE SKIP LOCKED
"""
_CANARY_EVENTS: Final[LiteralString] = """
DELETE FROM device_event AS e
USING (
    SELECT rae, session, at, seq, code FROM device_event
    WHERE rae = ANY(%b::text[]) AND recorded_at < now() - %s * INTERVAL '1 hour' LIMIT %s FOR UPDATE SKIP LOCKED
) AS old
WHERE e.rae = old.rae AND e.session = old.session AND e.at = old.at AND e.seq = old.seq AND e.code = old.code
"""
_CANARY_RAES: Final[LiteralString] = """
DELETE FROM rae AS r
USING (
    SELECT n.rae FROM rae AS n WHERE n.rae = ANY(%b::text[]) AND n.applied_at < now() - %s * INTERVAL '1 hour'
        AND NOT EXISTS (SELECT 1 FROM device_session AS s WHERE s.rae = n.rae) LIMIT %s FOR UPDATE SKIP LOCKED
) AS old
WHERE r.rae = old.rae
"""
"""In a transaction of its own: the sink locks a RAE's row before those of its device sessions."""
_BY_KEYS: Final[Sequence[LiteralString]] = (
    """DELETE FROM device_interface AS t USING unnest(%b::text[], %b::text[]::uuid[]) AS k (rae, session)
    WHERE t.rae = k.rae AND t.session = k.session""",
    """DELETE FROM device_attribute AS t USING unnest(%b::text[], %b::text[]::uuid[]) AS k (rae, session)
    WHERE t.rae = k.rae AND t.session = k.session""",
    """DELETE FROM device_session AS t USING unnest(%b::text[], %b::text[]::uuid[]) AS k (rae, session)
    WHERE t.rae = k.rae AND t.session = k.session""",
)
"""Children first: without their parent they would be nobody's."""

_OLD_GRANTS: Final[LiteralString] = """
DELETE FROM access_grant AS g
USING (
    SELECT id FROM access_grant WHERE ends_at < now() - %s * INTERVAL '1 hour' ORDER BY ends_at LIMIT %s
) AS old
WHERE g.id = old.id
"""
_OLD_AUDIT: Final[LiteralString] = """
DELETE FROM access_event AS e
USING (
    SELECT at, id FROM access_event AS o WHERE at < now() - %s * INTERVAL '1 hour'
    AND (SELECT g.id FROM access_grant AS g WHERE g.id = o.grant_id) IS NULL ORDER BY at, id LIMIT %s
) AS old
WHERE e.at = old.at AND e.id = old.id
"""
"""No line goes before its grant; the subquery, unlike NOT EXISTS, keeps to the order of the index. Rows are not locked:
that asks for the right to change them, which nobody has of the audit, and nobody else touches what is old."""

_log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """Rows of one pass."""

    events: int = 0
    tombstones: int = 0
    canaries: int = 0
    """Device sessions, events and RAEs of canaries."""
    grants: int = 0
    audit: int = 0
    """Lines of ``access_event``."""


def remove_old(connection: Connection, settings: RetentionSettings, *, rest: Callable[[float], bool]) -> Removed:
    """One pass: until nothing old is left, or ``rest`` says that it is enough. Blocks.

    Args:
        connection: In autocommit.
        settings: How long what is kept.
        rest: Waits for the seconds that it is given; True = stop.
    """
    return Removed(
        events=_in_batches([lambda: _events(connection, settings)], settings.batch_rows, rest),
        tombstones=_in_batches([lambda: _tombstones(connection, settings)], settings.batch_rows, rest),
        canaries=_in_batches(_canaries(connection, settings), settings.batch_rows, rest),
        grants=_in_batches([lambda: _access(connection, settings, "access_grant")], settings.batch_rows, rest),
        audit=_in_batches([lambda: _access(connection, settings, "access_event")], settings.batch_rows, rest),
    )


class Retention:
    """``start`` and ``stop`` once each; passes happen on its own thread, and a failed one is tried again later."""

    def __init__(self, settings: RetentionSettings, *, connect: Callable[[], Connection]) -> None:
        self._settings = settings
        self._connect = connect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits up to 2 s (a database that hangs does not hold up the end). Also without ``start``."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.interval_s):
            try:
                with contextlib.closing(self._connect()) as connection:
                    connection.autocommit = True
                    removed = remove_old(connection, self._settings, rest=self._stop.wait)
            except (DatabaseError, UnavailableError) as error:
                metrics.RETENTION_FAILURES.inc()
                _log.warning("old rows stay for now: %s", str(error).strip().split("\n", 1)[0])
            except Exception:  # must not end silently: the tables would grow for ever
                metrics.RETENTION_FAILURES.inc()
                _log.exception("retention failed")
            else:
                if any(removed):
                    _log.info(
                        "removed %d events, %d tombstones, %d rows of canaries, %d grants, %d lines of their audit",
                        *removed,
                    )


def _in_batches(batches: Iterable[Callable[[], int]], rows_max: int, rest: Callable[[float], bool]) -> int:
    """Repeat each of ``batches`` until it was not full, with a rest between any two; returns the rows."""
    total = 0
    began_s: float | None = None
    for batch in batches:
        rows = rows_max
        while rows >= rows_max:
            if began_s is not None and rest(time.monotonic() - began_s):
                return total
            began_s = time.monotonic()
            rows = batch()
            total += rows
    return total


def _events(connection: Connection, settings: RetentionSettings) -> int:
    rows = connection.execute(_OLD_EVENTS, (settings.event_hours, settings.batch_rows)).rowcount
    metrics.REMOVED.labels("device_event").inc(rows)
    return rows


def _access(connection: Connection, settings: RetentionSettings, table: str) -> int:
    statement = _OLD_GRANTS if table == "access_grant" else _OLD_AUDIT
    rows = connection.execute(statement, (settings.access_hours, settings.batch_rows)).rowcount
    metrics.REMOVED.labels(table).inc(rows)
    return rows


def _tombstones(connection: Connection, settings: RetentionSettings) -> int:
    with connection.transaction():
        keys = connection.execute(_OLD_TOMBSTONES, (settings.tombstone_hours, settings.batch_rows)).fetchall()
        return _remove_sessions(connection, keys)


def _canaries(connection: Connection, settings: RetentionSettings) -> Iterator[Callable[[], int]]:
    everyone = [rae for (rae,) in connection.execute(_CANARIES)]
    for first in range(0, len(everyone), _CANARIES_AT_ONCE):
        asked = (everyone[first : first + _CANARIES_AT_ONCE], settings.canary_hours, settings.batch_rows)
        for statement in (_CANARY_SESSIONS, _CANARY_EVENTS, _CANARY_RAES):
            yield partial(_canary_batch, connection, statement, asked)


def _canary_batch(connection: Connection, statement: LiteralString, asked: tuple[list[str], int, int]) -> int:
    with connection.transaction():
        done = connection.execute(statement, asked)
        rows = _remove_sessions(connection, done.fetchall()) if statement == _CANARY_SESSIONS else done.rowcount
    metrics.REMOVED.labels("canary").inc(rows)
    return rows


def _remove_sessions(connection: Connection, keys: Sequence[tuple[str, str]]) -> int:
    """Remove device sessions that are locked, with their children."""
    if not keys:
        return 0
    columns = ([rae for rae, _ in keys], [session for _, session in keys])
    for statement in _BY_KEYS:
        rows = connection.execute(statement, columns).rowcount
    metrics.REMOVED.labels("device_session").inc(rows)
    return rows
