"""Finds device sessions. Plain reads, never a lock; each statement uses an index and reads a bounded page.

Reachability is judged here, when somebody asks (``model.rae.is_reachable``), by the database's clock; it stands in no
table.
"""

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, Literal, LiteralString, get_args

from msgspec import Struct

from dmpd.cloud_registry.device_filter import DeviceFilter
from dmpd.model.rae import is_reachable
from dmpd.model.record import DeviceState
from dmpd.runtime.database import Connection

PAGE_SESSIONS: Final = 2000

Sort = Literal["rae", "state", "name", "esn", "ip", "rev", "changed", "stored"]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)


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


_COLUMNS: Final[LiteralString] = """
SELECT s.rae, s.session::text, s.state, r.state, r.heard_at, s.stale, s.absent_at IS NOT NULL, s.name, s.manufacturer,
    s.model, s.esn, i.mac, i.ip4, i.hostname, s.rev, s.changed_at, s.applied_at
"""
# LATERAL with LIMIT: the two other tables are asked by primary key for each row, and never read whole.
_CHOSEN: Final[LiteralString] = """
FROM (SELECT s.* FROM device_session AS s WHERE {} ORDER BY {} LIMIT %(limit)s) AS s
LEFT JOIN LATERAL (SELECT r.state, r.heard_at FROM rae AS r WHERE r.rae = s.rae LIMIT 1) AS r ON true
LEFT JOIN LATERAL (SELECT i.mac, i.ip4, i.hostname FROM device_interface AS i
    WHERE i.rae = s.rae AND i.session = s.session AND i.place = 0 LIMIT 1) AS i ON true
ORDER BY s.rae, s.session
"""

_KEY_ORDER: Final[LiteralString] = "s.rae, s.session"

# Where SQL and Python order alike, a page sends its first rows only. Texts are ordered here: collations differ.
_PAGE_ORDER: Final[dict[tuple[str, bool], LiteralString]] = {
    ("rae", False): _KEY_ORDER,
    ("rev", False): "s.rev, s.rae, s.session",
    ("rev", True): "s.rev DESC, s.rae DESC, s.session DESC",
    ("changed", False): "s.changed_at, s.rae, s.session",
    ("changed", True): "s.changed_at DESC, s.rae DESC, s.session DESC",
    ("stored", False): "s.applied_at, s.rae, s.session",
    ("stored", True): "s.applied_at DESC, s.rae DESC, s.session DESC",
}

PAGE_END: Final[LiteralString] = """
SELECT rae, session::text FROM device_session WHERE (rae, session) > (%s::text, %s::text::uuid)
ORDER BY rae, session OFFSET %s LIMIT 1
"""
# The range is said twice: of a pair of columns PostgreSQL guesses badly how many rows it is, of one column well.
_BEHIND: Final[LiteralString] = (
    "s.rae >= %(after_rae)s::text AND (s.rae, s.session) > (%(after_rae)s::text, %(after_session)s::text::uuid)"
)
_UP_TO: Final[LiteralString] = (
    "s.rae <= %(end_rae)s::text AND (s.rae, s.session) <= (%(end_rae)s::text, %(end_session)s::text::uuid)"
)
_BEGIN: Final = ("", "00000000-0000-0000-0000-000000000000")
_ALL: Final = 1 << 31


def find(
    connection: Connection,
    wanted: DeviceFilter,
    *,
    limit: int,
    sort: Sort = "rae",
    descending: bool = False,
    now: datetime | None = None,
) -> list[Device]:
    """Open device sessions of ``wanted``, sorted, at most ``limit``; what is unknown sorts last. Blocks.

    By the key (``rae``) it stops at ``limit``. Any other order has to see all that is wanted, which takes some seconds
    for a fleet and a filter that no index serves.

    Args:
        connection: In autocommit.
        wanted: What to find.
        limit: Most devices, 1 or more.
        sort: By what.
        descending: The greatest first.
        now: For reachability; ``None`` = the database's clock.
    """
    assert limit >= 1
    asked_at = now or clock(connection)
    order = _PAGE_ORDER.get((sort, descending))
    found = _found(connection, wanted, _ALL if order is None else limit, order or _KEY_ORDER, asked_at)
    if order is _KEY_ORDER:
        return [device for _, device in zip(range(limit), found, strict=False)]
    choose = heapq.nlargest if descending else heapq.nsmallest
    return choose(limit, found, key=_order(sort, descending=descending))


def clock(connection: Connection) -> datetime:
    """The database's, now."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def statement(
    wanted: DeviceFilter, *extra: LiteralString, order: LiteralString
) -> tuple[LiteralString, dict[str, Any]]:
    """The SQL of one page, and its parameters but for ``limit`` and those of ``extra``."""
    conditions, values = wanted.where()
    return _COLUMNS + _CHOSEN.format(" AND ".join([*conditions, *extra]), order), values


def pages(wanted: DeviceFilter, order: LiteralString) -> tuple[LiteralString, LiteralString, dict[str, Any]]:
    """The SQL of a page in the middle, and that of the last one, of a walk; with their parameters."""
    middle, values = statement(wanted, _BEHIND, _UP_TO, order=order)
    last, _ = statement(wanted, _BEHIND, order=order)
    return middle, last, values


def _found(
    connection: Connection, wanted: DeviceFilter, limit: int, order: LiteralString, now: datetime
) -> Iterator[Device]:
    if wanted.is_indexed:
        text, values = statement(wanted, order=order)
        for row in connection.execute(text, values | {"limit": limit}):
            yield _device(row, now)
        return
    middle, last, values = pages(wanted, order)
    values["limit"] = min(limit, PAGE_SESSIONS)
    after: tuple[str, str] | None = _BEGIN
    while after is not None:
        end = connection.execute(PAGE_END, (*after, PAGE_SESSIONS - 1)).fetchone()
        asked = values | {"after_rae": after[0], "after_session": after[1]}
        if end is not None:
            asked |= {"end_rae": end[0], "end_session": end[1]}
        for row in connection.execute(last if end is None else middle, asked):
            yield _device(row, now)
        after = end


def _device(values: tuple[Any, ...], now: datetime) -> Device:
    return Device(
        rae=values[0],
        session=values[1],
        state=values[2],
        reachable=values[3] is not None and is_reachable(values[3], values[4], now),
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


_SORTED_BY: Final[dict[Sort, Callable[[Device], Any]]] = {
    "rae": lambda device: device.rae,
    "state": lambda device: device.state,
    "name": lambda device: device.name or device.hostname,
    "esn": lambda device: device.esn,
    "ip": lambda device: device.ip4 and [int(part) if part.isdigit() else 0 for part in device.ip4.split(".")],
    "rev": lambda device: device.rev,
    "changed": lambda device: device.changed_at,
    "stored": lambda device: device.applied_at,
}


def _order(sort: Sort, *, descending: bool) -> Callable[[Device], Any]:
    value_of = _SORTED_BY[sort]

    def key(device: Device) -> tuple[Any, ...]:
        value = value_of(device)
        is_unknown = value is None
        return is_unknown != descending, 0 if is_unknown else value, device.rae, device.session

    return key
