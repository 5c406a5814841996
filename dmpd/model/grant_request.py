"""What may be granted at all: names, times, reasons. Pure; a refusal says what was expected, and nothing is changed."""

from datetime import datetime, timedelta
from typing import Final

from dmpd.model.grants import Level
from dmpd.model.principals import PrincipalKind, is_rae, principal_kind
from dmpd.model.topics import RAE_SESSION, is_session

WHY_BYTES_MAX: Final = 500
NAME_BYTES_MAX: Final = 64


class GrantRefusedError(ValueError):
    """It cannot be granted, extended or revoked like that; the text says why and what would be possible."""


def check_scope(user: str, rae: str, session: str | None, level: Level) -> None:
    """Raises ``GrantRefusedError``: a name has not the form that the topics need."""
    if principal_kind(user) is not PrincipalKind.USER:
        raise GrantRefusedError(f"user: expected u-NAME (letters, digits, '.', '_', '-', up to 64), got {_shown(user)}")
    if not is_rae(rae):
        raise GrantRefusedError(f"rae: expected the serial of a RAE, got {_shown(rae)}")
    if session is not None and session != RAE_SESSION and not is_session(session):
        raise GrantRefusedError(
            f"session: expected the id of a device session (a lower-case UUID) or 'rae', got {_shown(session)}"
        )
    if session == RAE_SESSION and level == "exclusive":
        raise GrantRefusedError("session: the RAE itself cannot be commanded exclusively; leave --exclusive out")


def check_window(starts_at: datetime, ends_at: datetime, *, now: datetime, hours_max: float) -> None:
    """Raises ``GrantRefusedError``: it ends before it starts, has ended, or would end too late."""
    latest = now + timedelta(hours=hours_max)
    if ends_at <= starts_at:
        raise GrantRefusedError(f"it would end ({said(ends_at)}) before it starts ({said(starts_at)})")
    if ends_at <= now:
        raise GrantRefusedError(f"it would have ended already ({said(ends_at)}, it is {said(now)})")
    if ends_at > latest:
        raise GrantRefusedError(
            f"it would end at {said(ends_at)}: expected at most {hours_max:g} hours from now ({said(latest)}),"
            " see access.grant_hours_max"
        )


def check_words(by: str, why: str) -> None:
    """Raises ``GrantRefusedError``: who grants, or why, is no short printable text."""
    for name, text, longest in (("by", by, NAME_BYTES_MAX), ("why", why, WHY_BYTES_MAX)):
        if not text.strip() or not text.isprintable() or len(text.encode(errors="replace")) > longest:
            raise GrantRefusedError(f"{name}: expected 1 to {longest} bytes of printable text, got {_shown(text)}")


def said(instant: datetime) -> str:
    """An instant in messages for people."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(text: str) -> str:
    return ascii(text[:80])
