"""The audit of access (``access_event``): lines are added, never changed. Also what it says last of each grant."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from dmpd.access.rows import new_id
from dmpd.model.grants import Grant
from dmpd.runtime.database import Connection

_PUT_EVENT: Final = (
    "INSERT INTO access_event (at, id, code, grant_id, principal, actor, detail) VALUES (%s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT DO NOTHING"
)

_LAST_WORDS: Final = """
SELECT g.id, g.user_name, least(g.ends_at, coalesce(g.ended_at, g.ends_at)) <= now(), (
    SELECT e.code FROM access_event AS e WHERE e.grant_id = g.id AND e.code IN ('in force', 'lost', 'ended')
    ORDER BY e.at DESC, e.id DESC LIMIT 1
)
FROM access_grant AS g
WHERE g.ends_at > coalesce((SELECT recorded_until FROM access_daemon WHERE name = %(daemon)s), now())
    - %(margin_s)s * INTERVAL '1 second'
    AND g.starts_at <= now() AND (g.ended_at IS NULL OR g.starts_at < g.ended_at)
"""
_MARGIN_S: Final = 600
"""Longer than a line is under way before it waits: an end that the broker had not done when all was written."""


class Event(Struct, frozen=True, kw_only=True):
    """One line of the audit."""

    at: datetime
    code: str
    actor: str
    grant: str | None = None
    principal: str | None = None
    detail: Mapping[str, Any] = {}
    id: str = ""


class LastWords(Struct, frozen=True, kw_only=True):
    """How far the audit tells of the broker."""

    in_force: frozenset[str]
    """Grants that the broker has, as it says."""
    unended: Mapping[str, str]
    """Grants that began and are over, and their users, of whose end it says nothing; nor that the broker lost them."""


def new_event(at: datetime, code: str, actor: str, **more: Any) -> Event:
    """An event with an id of its own, so that writing it twice is writing it once."""
    return Event(at=at, code=code, actor=actor, id=new_id(), **more)


def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """Add to the audit; again is no harm. Raises ``psycopg.Error``."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_PUT_EVENT, [_event_values(event) for event in events])


def note(
    connection: Connection, now: datetime, code: str, about: Grant, actor: str, more: Mapping[str, Any] | None = None
) -> None:
    """Add what a person did to a grant, within his transaction. Raises ``psycopg.Error``."""
    detail = {
        "rae": about.rae,
        "session": about.session,
        "level": about.level,
        "starts_at": about.starts_at.isoformat(),
        "ends_at": about.ends_at.isoformat(),
        "why": about.why,
        **(more or {}),
    }
    event = new_event(now, code, actor, grant=about.id, principal=about.user, detail=detail)
    connection.execute(_PUT_EVENT, _event_values(event))


def _event_values(event: Event) -> tuple[Any, ...]:
    return event.at, event.id, event.code, event.grant, event.principal, event.actor, json.dumps(dict(event.detail))


def last_words(connection: Connection, daemon: str) -> LastWords:
    """What the audit says last of the grants that are not over, and of those that ended since ``daemon`` kept it whole.

    Raises ``psycopg.Error``.
    """
    with connection.transaction():
        rows = connection.execute(_LAST_WORDS, {"daemon": daemon, "margin_s": _MARGIN_S}).fetchall()
    return LastWords(
        in_force=frozenset(grant for grant, _, _, word in rows if word == "in force"),
        unended={grant: user for grant, user, is_over, word in rows if is_over and word in (None, "in force")},
    )
