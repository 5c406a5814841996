"""``dmpctl raes``: the routers, whether they can be reached now, and what they said of themselves last.

A RAE is reachable while it said something within the last three minutes and its last word was no farewell: that is
judged when you ask. ``run`` counts its connections, ``silent`` is for how long nothing was heard.

Exit codes: 0 at least one RAE (or --watch was ended by Ctrl-C), 1 none, 64 wrong usage, 69 the database does not
answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType

from dmpd.cli import arguments, showing, tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.showing import View
from dmpd.cloud_registry import query
from dmpd.cloud_registry.query import Rae
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "list RAEs"
LIMIT: Final = 10_000
_COLUMNS: Final = (
    *("rae", "reachable", "state", "run", "heard", "silent", "devices", "online", "stale", "outbox", "oldest"),
    *("lan", "clock", "certificate", "version"),
)
_NUMBERS: Final = ("run", "silent", "devices", "online", "stale", "outbox", "oldest")


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--rae", type=arguments.rae, help="only this one")
    parser.add_argument("--unreachable", action="store_true", help="only those that cannot be reached now")
    parser.add_argument("--canary", action="store_true", help="also the canary's own")
    parser.add_argument(
        "--limit", type=arguments.count, default=LIMIT, metavar="N", help=f"look at the first N (default {LIMIT})"
    )
    showing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    def look(connection: Connection) -> View:
        seen = query.raes(connection, rae=args.rae, canary=args.canary, limit=args.limit)
        found = [rae for rae in seen if not (args.unreachable and rae.reachable)]
        code = exit_codes.OK if found else exit_codes.DIFFERENT
        return View(found, lambda: _shown(found, cut=len(seen) == args.limit), code)

    return showing.show(args, look)


def _shown(found: Sequence[Rae], *, cut: bool) -> RenderableType:
    table = tables.table(_COLUMNS, right=_NUMBERS)
    for rae in found:
        status = rae.status
        days_left = status and status.certificate_days_left
        table.add_row(
            rae.rae,
            "yes" if rae.reachable else "no",
            tables.state_text(rae.state),
            tables.text(status and status.run),
            tables.instant(rae.heard_at),
            tables.duration(rae.silence_s),
            str(rae.devices),
            str(rae.online),
            str(rae.stale),
            tables.text(status and status.outbox_rows),
            tables.duration(status.outbox_age_s if status and status.outbox_rows else None),
            tables.text(status and status.lan),
            tables.text(status and status.clock),
            "-" if days_left is None else f"{days_left} d left",
            tables.shown(status and status.version),
        )
    more = "; there may be more (--limit)" if cut else ""
    return Group(table, f"{len(found)} RAE{'' if len(found) == 1 else 's'}{more}")
