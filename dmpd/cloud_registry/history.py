"""What happened: rows of ``device_event``, newest first, as far back as they are kept. Plain reads, by an index."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, LiteralString

from msgspec import Struct

from dmpd.cloud_registry.device_filter import CANARY_PREFIX
from dmpd.runtime.database import Connection


class HistoryEvent(Struct, frozen=True, kw_only=True):
    """One thing that happened to a device session, or to a RAE itself (``session`` is ``rae``)."""

    rae: str
    session: str
    code: str
    at: datetime
    """The RAE's clock."""
    recorded_at: datetime
    """The database's clock."""
    epoch: int
    seq: int
    detail: Mapping[str, Any]


_CONDITIONS: Final[Mapping[str, LiteralString]] = {
    "rae": "rae = %(rae)s",
    "session": "session = %(session)s",
    "code": "code = %(code)s",
    "since": "recorded_at >= %(since)s",
}


_EVENTS: Final[LiteralString] = """
SELECT rae, session, code, at, recorded_at, epoch, seq, detail FROM device_event WHERE {} ORDER BY {} LIMIT %(limit)s
"""


def statement(
    *, rae: str | None, session: str | None, code: str | None, since: datetime | None, canary: bool, limit: int
) -> tuple[LiteralString, dict[str, Any]]:
    """The SQL of ``read`` and its parameters. Pure."""
    given = {"rae": rae, "session": session, "code": code, "since": since}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    conditions: list[LiteralString] = [_CONDITIONS[name] for name in values]
    if not canary and not (rae or "").startswith(CANARY_PREFIX):
        conditions.append("rae NOT LIKE 'canary-%%'")
    chosen: LiteralString = " AND ".join(conditions) or "true"
    order: LiteralString = "at DESC, seq DESC" if session is not None else "recorded_at DESC, at DESC, seq DESC"
    return _EVENTS.format(chosen, order), values | {"limit": limit}


def read(
    connection: Connection,
    *,
    rae: str | None = None,
    session: str | None = None,
    code: str | None = None,
    since: datetime | None = None,
    canary: bool = False,
    limit: int = 50,
) -> list[HistoryEvent]:
    """Events, newest first, at most ``limit``; those of one session by the RAE's clock, others as they were recorded.

    ``session`` needs its ``rae``: together they are the key.
    """
    assert session is None or rae is not None
    text, values = statement(rae=rae, session=session, code=code, since=since, canary=canary, limit=limit)
    names = HistoryEvent.__struct_fields__
    return [HistoryEvent(**dict(zip(names, row, strict=True))) for row in connection.execute(text, values)]
