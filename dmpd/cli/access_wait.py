"""Waits until the broker has done what the database says, as the audit tells; or says why it has not."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from dmpd.access import query
from dmpd.access.query import AuditLine
from dmpd.model.grants import Grant
from dmpd.runtime.database import Connection

POLL_S: Final = 0.05
SILENT_S: Final = 10.0
"""A daemon that said nothing for so long is not at work."""

Done = Callable[[Sequence[AuditLine]], bool]


def in_force(lines: Sequence[AuditLine]) -> bool:
    """The broker has the rule, as the last word says."""
    last = [line.code for line in lines if line.code in ("in force", "ended", "lost")]
    return last[-1:] == ["in force"]


def gone(lines: Sequence[AuditLine]) -> bool:
    return not in_force(lines)


def extended(grant: Grant) -> Done:
    """The broker has the rule with this end; it may have come to it with that."""
    wanted, codes = grant.ends_at.isoformat(), ("in force", "updated")
    return lambda lines: any(line.code in codes and line.detail.get("ends_at") == wanted for line in lines)


def wait(connection: Connection, grant: Grant, done: Done, *, timeout_s: float) -> float | None:
    """Seconds until ``done`` holds for the grant's audit; ``None``: not within ``timeout_s``."""
    begun_s = time.monotonic()
    while True:
        if done(query.audit(connection, grant=grant.id)):
            return time.monotonic() - begun_s
        if time.monotonic() - begun_s >= timeout_s:
            return None
        time.sleep(POLL_S)


def why_not(connection: Connection) -> str:
    """What keeps the daemon from it, in a sentence."""
    found = query.daemon(connection)
    if found is None:
        return "no dmpd access was ever at work on this database: start it"
    if found.silence_s > SILENT_S:
        return f"dmpd access was last heard of {found.silence_s:.0f} s ago: is it running?"
    return f"dmpd access says: {found.problem or 'all is well; try again'}"
