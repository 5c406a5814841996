"""One device session, its RAE, all RAEs: plain reads, never a lock, each by an index. Lists are in ``devices``.

Reachability is judged here, when somebody asks (``model.rae.is_reachable``), by the database's clock, and is nowhere in
the tables. Rows of the canary's own RAEs (``canary-…``) are left out unless asked for.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from dmpd.cloud_registry import reader
from dmpd.cloud_registry.device_filter import CANARY_PREFIX
from dmpd.cloud_registry.devices import clock
from dmpd.model.apply import DeviceRow
from dmpd.model.messages import RaeState, Status
from dmpd.model.rae import is_reachable
from dmpd.runtime.database import Connection

RAES_MAX: Final = 100_000


class DeviceEvent(Struct, frozen=True, kw_only=True):
    at: datetime
    code: str
    detail: Mapping[str, Any]


class DeviceDetail(Struct, frozen=True, kw_only=True):
    """All that is known of one device session, open or closed, with its newest events first."""

    row: DeviceRow
    reachable: bool
    kafka_partition: int
    kafka_offset: int
    applied_at: datetime
    events: Sequence[DeviceEvent]


class Rae(Struct, frozen=True, kw_only=True):
    """One RAE. ``status`` is absent while only its devices were heard of."""

    rae: str
    reachable: bool
    state: RaeState | None
    heard_at: datetime | None
    silence_s: float | None
    """Since then."""
    devices: int
    """Open sessions that are not absent; ``online`` and ``stale`` are some of them."""
    online: int
    stale: int
    status: Status | None


def find_sessions(connection: Connection, prefix: str, *, rae: str | None = None) -> list[tuple[str, str]]:
    """Keys ``(rae, session)`` of the sessions whose id is, or begins with, ``prefix``; at most ``FOUND_MAX``.

    Raises:
        ValueError: No id begins like that.
    """
    first, last = session_range(prefix)
    return connection.execute(FIND_SESSIONS, {"first": first, "last": last, "rae": rae, "limit": FOUND_MAX}).fetchall()


FIND_SESSIONS: Final = """
SELECT rae, session::text FROM device_session
WHERE session BETWEEN %(first)s::text::uuid AND %(last)s::text::uuid
    AND (%(rae)s::text IS NULL OR rae = %(rae)s::text)
ORDER BY rae, session LIMIT %(limit)s
"""

FOUND_MAX: Final = 21
"""One more than are worth showing: whether there are more."""

_UUID_FORM: Final = "00000000-0000-0000-0000-000000000000"


def session_range(prefix: str) -> tuple[str, str]:
    """The first and the last id that begin with ``prefix``. Raises ``ValueError``: none does."""
    said = prefix.lower()
    fits = 0 < len(said) <= len(_UUID_FORM) and all(
        letter == form if form == "-" else letter in "0123456789abcdef"
        for letter, form in zip(said, _UUID_FORM, strict=False)
    )
    if not fits:
        raise ValueError(f"expected the id of a device session, or how it begins, got {prefix[:60]!r}")
    return said + _UUID_FORM[len(said) :], said + _UUID_FORM[len(said) :].replace("0", "f")


def device(
    connection: Connection, rae: str, session: str, *, events_max: int = 20, now: datetime | None = None
) -> DeviceDetail | None:
    """Everything about one device session; ``None`` if there is no such row."""
    with connection.transaction():
        rows = reader.with_content(connection, reader.read_rows(connection, [(rae, session)]))
        place = connection.execute(
            "SELECT s.kafka_partition, s.kafka_offset, s.applied_at, r.state, r.heard_at FROM device_session AS s"
            " LEFT JOIN rae AS r ON r.rae = s.rae WHERE s.rae = %s AND s.session = %s::text::uuid",
            (rae, session),
        ).fetchone()
        if not rows or place is None:
            return None
        found = connection.execute(
            "SELECT at, code, detail FROM device_event WHERE rae = %s AND session = %s"
            " ORDER BY at DESC, seq DESC LIMIT %s",
            (rae, session, events_max),
        ).fetchall()
    return DeviceDetail(
        row=rows[rae, session],
        reachable=_is_reachable(place[3], place[4], now or clock(connection)),
        kafka_partition=place[0],
        kafka_offset=place[1],
        applied_at=place[2],
        events=[DeviceEvent(at=at, code=code, detail=detail) for at, code, detail in found],
    )


# Names: those that ever sent a status, and, hopping from one to the next in the key, those of which only devices are
# known. Counted by key: a RAE at a time, never the whole table.
RAES: Final = """
WITH RECURSIVE hops AS (
    (SELECT rae FROM device_session ORDER BY rae LIMIT 1)
    UNION ALL
    SELECT (SELECT s.rae FROM device_session AS s WHERE s.rae > h.rae ORDER BY s.rae LIMIT 1)
    FROM hops AS h WHERE h.rae IS NOT NULL
), names AS (
    SELECT rae FROM rae UNION SELECT rae FROM hops WHERE rae IS NOT NULL
)
SELECT n.rae, r.state, r.heard_at, r.status::text, d.devices, d.online, d.stale
FROM (
    SELECT rae FROM names
    WHERE (%(canary)s OR rae NOT LIKE 'canary-%%') AND (%(rae)s::text IS NULL OR rae = %(rae)s::text)
    ORDER BY rae LIMIT %(limit)s
) AS n
LEFT JOIN rae AS r ON r.rae = n.rae
CROSS JOIN LATERAL (
    SELECT count(*) AS devices, coalesce(sum(CASE WHEN s.state = 'online' THEN 1 ELSE 0 END), 0)::bigint AS online,
        coalesce(sum(CASE WHEN s.stale THEN 1 ELSE 0 END), 0)::bigint AS stale
    FROM device_session AS s WHERE s.rae = n.rae AND s.closed_at IS NULL AND s.absent_at IS NULL
) AS d
ORDER BY n.rae
"""


def raes(
    connection: Connection,
    *,
    rae: str | None = None,
    canary: bool = False,
    limit: int = RAES_MAX,
    now: datetime | None = None,
) -> list[Rae]:
    """The RAEs that were ever heard of, by name; one of them, or at most ``limit``."""
    asked_at = now or clock(connection)
    asked = {"rae": rae, "canary": canary or (rae or "").startswith(CANARY_PREFIX), "limit": limit}
    return [_rae(row, asked_at) for row in connection.execute(RAES, asked)]


def _rae(row: tuple[Any, ...], now: datetime) -> Rae:
    rae, state, heard_at, status, devices, online, stale = row
    return Rae(
        rae=rae,
        reachable=_is_reachable(state, heard_at, now),
        state=state,
        heard_at=heard_at,
        silence_s=None if heard_at is None else max(0.0, round((now - heard_at).total_seconds(), 1)),
        devices=devices,
        online=online,
        stale=stale,
        status=None if status is None else msgspec.json.decode(status, type=Status),
    )


def _is_reachable(state: RaeState | None, heard_at: datetime | None, now: datetime) -> bool:
    return state is not None and is_reachable(state, heard_at, now)


def rows_of_rae(connection: Connection, rae: str) -> dict[str, DeviceRow]:
    """All device sessions of one RAE, open and closed, complete, by id, as of one instant."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found = connection.execute("SELECT rae, session::text FROM device_session WHERE rae = %s", (rae,))
        keys = [(key[0], key[1]) for key in found]
        rows = reader.with_content(connection, reader.read_rows(connection, keys))
    return {session: row for (_, session), row in rows.items()}
