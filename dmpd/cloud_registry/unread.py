"""Changes of rows that nobody has read: written in one statement, in which the database looks whether they go on there.

For live records, most of which meet a row that the worker does not remember: to read it first is half of what they
cost. What is not written goes the ways of ``straight`` and ``sink``, as if it had not been tried; a replay of old
changes takes no lock and writes no log here.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from dmpd.cloud_registry import statements
from dmpd.model.content_size import FEW
from dmpd.model.running import Running
from dmpd.runtime.database import Connection

_encode: Final = msgspec.json.encode


class _Change(Struct, frozen=True, gc=False):
    """See ``statements.UPDATE_UNREAD``."""

    place: int
    rae: str
    session: str
    epoch: int
    base: int
    rev: int
    seq: int
    state: str | None
    changed_at: Any
    kafka_offset: int
    attributes: Mapping[str, Any]
    old_max: int
    """With more attributes than these the row may get too large, which ``content_size`` is to judge."""
    event_at: Any
    event_seq: int | None
    event: Mapping[str, object] | None
    """Without the state that was before, which only the database knows."""


def may_go(run: Running) -> bool:
    """Whether ``run``, scanned as if there were no row, is a change that says no more than one state."""
    return run.has_news and not run.replace and len(run.said) <= 1 and not run.unsaid


def write(connection: Connection, runs: Mapping[bytes, Running], *, partition: int) -> set[bytes]:
    """Write those of ``runs`` whose rows are open, exact, and at the revision before; returns their keys. Blocks.

    One statement, hence one transaction. All of ``runs`` must be such that ``may_go``.

    Raises:
        psycopg.Error: Whatever the database says; see ``sqlstate``.
    """
    ordered = sorted(runs.items(), key=_place)
    changes = [_change(place, run) for place, (_, run) in enumerate(ordered)]
    written = connection.execute(statements.UPDATE_UNREAD, (_encode(changes).decode(), partition)).fetchall()
    return {ordered[place][0] for (place,) in written}


def _place(one: tuple[bytes, Running]) -> tuple[str, str]:
    """Rows are locked in this order."""
    return one[1].rae, one[1].session


def _change(place: int, run: Running) -> _Change:
    event_at, event_seq, event = None, None, None
    for event_at, event_seq, rev, state, cause in run.said:  # noqa: B007 - one at most
        event = {"to": state, "rev": rev, "cause": cause}
    return _Change(
        place, run.rae, run.session, run.epoch, run.base, run.rev, run.seq, run.state, run.at, run.last_offset,
        run.attributes, FEW - len(run.attributes), event_at, event_seq, event,
    )  # fmt: skip
