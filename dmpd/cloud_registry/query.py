"""What people and programs ask: plain reads, one statement each, never a lock.

Reachability is judged here, when somebody asks (``model.rae.is_reachable``), and is nowhere in the tables. Rows of the
canary's own RAEs (``canary-…``) are left out unless asked for.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from dmpd.cloud_registry import reader
from dmpd.model.apply import DeviceRow
from dmpd.model.messages import RaeState, Status
from dmpd.model.rae import is_reachable
from dmpd.model.record import DeviceState
from dmpd.runtime.database import Connection

CANARY_PREFIX: Final = "canary-"

_NOT_CANARY: Final = "(%(canary)s OR rae NOT LIKE 'canary-%%')"


class Device(Struct, frozen=True, kw_only=True):
    """One open device session in a list."""

    rae: str
    session: str
    state: DeviceState
    reachable: bool
    """Of its RAE, now."""
    stale: bool
    absent: bool
    name: str | None
    manufacturer: str | None
    model: str | None
    esn: str | None
    mac: str | None
    """Of its first interface, like ``ip4`` and ``hostname``."""
    ip4: str | None
    hostname: str | None
    rev: int
    changed_at: datetime
    applied_at: datetime


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
    devices: int
    """Open sessions that are not absent."""
    online: int
    status: Status | None


_DEVICES: Final = f"""
SELECT s.rae, s.session::text, s.state, r.state, r.heard_at, s.stale, s.absent_at IS NOT NULL, s.name, s.manufacturer,
    s.model, s.esn, i.mac, i.ip4, i.hostname, s.rev, s.changed_at, s.applied_at
FROM (
    SELECT * FROM device_session
    WHERE closed_at IS NULL AND {_NOT_CANARY} AND (%(rae)s::text IS NULL OR rae = %(rae)s::text)
        AND (%(state)s::text IS NULL OR state = %(state)s::text)
    ORDER BY rae, session LIMIT %(limit)s
) AS s
LEFT JOIN rae AS r ON r.rae = s.rae
LEFT JOIN device_interface AS i ON i.rae = s.rae AND i.session = s.session AND i.place = 0
ORDER BY s.rae, s.session
"""  # noqa: S608 - constants


def devices(
    connection: Connection,
    *,
    rae: str | None = None,
    state: str | None = None,
    canary: bool = False,
    limit: int = 10_000,
    now: datetime | None = None,
) -> list[Device]:
    """Open device sessions in key order, at most ``limit``. One RAE's, and of one state, if said."""
    asked_at = now or datetime.now(tz=UTC)
    asked = {"rae": rae, "state": state, "canary": canary or (rae or "").startswith(CANARY_PREFIX), "limit": limit}
    return [
        Device(
            rae=values[0],
            session=values[1],
            state=values[2],
            reachable=_is_reachable(values[3], values[4], asked_at),
            stale=values[5],
            absent=values[6],
            name=values[7],
            manufacturer=values[8],
            model=values[9],
            esn=values[10],
            mac=values[11],
            ip4=values[12],
            hostname=values[13],
            rev=values[14],
            changed_at=values[15],
            applied_at=values[16],
        )
        for values in connection.execute(_DEVICES, asked)
    ]


def find_sessions(connection: Connection, session: str, *, rae: str | None = None) -> list[tuple[str, str]]:
    """Keys ``(rae, session)`` of the sessions whose id is, or begins with, ``session``; at most 20."""
    asked = (session.lower().replace("%", "").replace("_", "") + "%", rae, rae)
    return connection.execute(
        "SELECT rae, session::text FROM device_session WHERE session::text LIKE %s AND (%s::text IS NULL OR rae = %s)"
        " ORDER BY rae, session LIMIT 20",
        asked,
    ).fetchall()


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
        reachable=_is_reachable(place[3], place[4], now or datetime.now(tz=UTC)),
        kafka_partition=place[0],
        kafka_offset=place[1],
        applied_at=place[2],
        events=[DeviceEvent(at=at, code=code, detail=detail) for at, code, detail in found],
    )


_RAES: Final = """
SELECT coalesce(r.rae, d.rae), r.state, r.heard_at, r.status::text, coalesce(d.devices, 0), coalesce(d.online, 0)
FROM rae AS r
FULL JOIN (
    SELECT rae, count(*) AS devices, sum(CASE WHEN state = 'online' THEN 1 ELSE 0 END) AS online
    FROM device_session WHERE closed_at IS NULL AND absent_at IS NULL GROUP BY rae
) AS d ON d.rae = r.rae
WHERE %(canary)s OR coalesce(r.rae, d.rae) NOT LIKE 'canary-%%'
ORDER BY 1
"""


def raes(connection: Connection, *, canary: bool = False, now: datetime | None = None) -> list[Rae]:
    """All RAEs that were ever heard of, by name."""
    asked_at = now or datetime.now(tz=UTC)
    return [
        Rae(
            rae=rae,
            reachable=_is_reachable(state, heard_at, asked_at),
            state=state,
            heard_at=heard_at,
            devices=devices,
            online=online,
            status=None if status is None else msgspec.json.decode(status, type=Status),
        )
        for rae, state, heard_at, status, devices, online in connection.execute(_RAES, {"canary": canary})
    ]


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
