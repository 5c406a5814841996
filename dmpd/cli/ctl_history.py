"""``dmpctl history [ID]``: what happened, newest first: changes of state, ends, conflicts, events of RAEs.

Of one device session (ID: its id, or how it begins), of one RAE, or of all. Events are kept for a bounded time. ``at``
is the RAE's clock, ``recorded`` the database's; --since counts by the latter.

Exit codes: 0 at least one event (or --watch was ended by Ctrl-C), 1 none, or no such session, 2 several sessions begin
like that (they are listed), 64 wrong usage, 69 the database does not answer, 78 the configuration or the database's
schema is wrong.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct, field
from rich.console import Group, RenderableType

from dmpd.cli import arguments, session_choice, showing, tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.showing import View
from dmpd.cloud_registry import history
from dmpd.cloud_registry.history import HistoryEvent
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "show what happened to devices and RAEs"
LIMIT: Final = 50
_BETWEEN_MAX: Final = 6
"""States between shown in one line; ``--json`` has more."""
_way_decoder: Final = msgspec.json.Decoder(list[tuple[Any, Any, Any, str, Any]])
_COLUMNS: Final = ("at", "rae", "session", "event", "detail", "recorded")


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    session_choice.add_arguments(parser, optional=True)
    parser.add_argument("--code", type=arguments.printable, help="only these events: state, closed, lan_down …")
    parser.add_argument(
        "--since",
        type=arguments.since,
        metavar="WHEN",
        help="recorded since then: 30m, 2h, 3d, or 2026-11-25T04:00:00Z",
    )
    parser.add_argument("--canary", action="store_true", help="also the canary's own")
    parser.add_argument(
        "--limit", type=arguments.count, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})"
    )
    showing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return showing.show(args, lambda connection: _look(connection, args))


def _look(connection: Connection, args: argparse.Namespace) -> View:
    rae, session = args.rae, None
    if args.id is not None:
        rae, session = session_choice.find(connection, args)
    found = history.read(
        connection, rae=rae, session=session, code=args.code, since=args.since, canary=args.canary, limit=args.limit
    )
    return View(found, lambda: _shown(found, args.limit), exit_codes.OK if found else exit_codes.DIFFERENT)


def _shown(found: Sequence[HistoryEvent], limit: int) -> RenderableType:
    table = tables.table(_COLUMNS)
    for event in found:
        table.add_row(
            tables.instant(event.at),
            event.rae,
            event.session,
            tables.shown(event.code),
            tables.shown(said(event)),
            tables.instant(event.recorded_at),
        )
    more = "; there may be older ones (--limit)" if len(found) == limit else ""
    return Group(table, f"{len(found)} event{'' if len(found) == 1 else 's'}{more}")


class _Passed(Struct, frozen=True):
    """The detail of our own events of states (``decide.state_event``); a RAE may say the like, with anything in it."""

    to: str
    before: str | None = field(name="from", default=None)
    cause: str | None = None
    passed: int = 1
    way: str = "[]"


def said(event: HistoryEvent) -> str:
    """The detail in words where it is one of ours, else as JSON."""
    detail = event.detail
    passed = _passed(detail) if event.code == "state" else None
    if passed is not None:
        return " → ".join(_way(passed)) + (f" ({passed.cause})" if passed.cause else "")
    if event.code == "closed" and "reason" in detail:
        successor = detail.get("successor")
        return f"{detail['reason']}{f', continued as {successor}' if successor else ''}"
    return msgspec.json.encode(detail).decode() if detail else ""


def _passed(detail: object) -> _Passed | None:
    try:
        passed = msgspec.convert(detail, _Passed)
        _states(passed)
    except msgspec.MsgspecError:
        return None
    return passed


def _states(detail: _Passed) -> list[str]:
    return [state for _, _, _, state, _ in _way_decoder.decode(detail.way)]


def _way(detail: _Passed) -> Iterator[str]:
    """From the state before to the new one, with those between that came in the same batch."""
    between = _states(detail)[:-1]
    shown = between[-_BETWEEN_MAX:]
    left_out = detail.passed - 1 - len(shown)
    yield detail.before or "new"
    if left_out > 0:
        yield f"{left_out} more"
    yield from shown
    yield detail.to
