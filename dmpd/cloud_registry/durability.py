"""Whether the database keeps what it confirms: looked at when the Cloud Registry starts."""

import logging
from collections.abc import Iterator

from dmpd.runtime.database import Connection

_log = logging.getLogger(__name__)


def warn(connection: Connection) -> list[str]:
    """Log what makes confirmed rows vanish in a crash; returns the sentences. ``connection`` is in autocommit."""
    found = [] if connection.info.parameter_status("crdb_version") else list(_postgresql(connection))
    for sentence in found:
        _log.warning("%s", sentence)
    return found


def _postgresql(connection: Connection) -> Iterator[str]:
    lost = "offsets are committed for rows that a crash takes back, and nothing fetches them again"
    if _shown(connection, "fsync") == "off":
        yield f"the database runs with fsync = off: {lost}"
    if _shown(connection, "synchronous_commit") == "off":
        yield f"the database runs with synchronous_commit = off: {lost}"
    if _shown(connection, "full_page_writes") == "off":
        yield "the database runs with full_page_writes = off: a power cut can tear its pages"


def _shown(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])
