"""``dmpctl raes``: the routers, whether they can be reached, and what they said of themselves last.

Exit codes: 0 at least one RAE, 1 none, 64 wrong usage, 69 the database does not answer, 78 the configuration or the
database's schema is wrong.
"""

import argparse
from typing import Final

from dmpd.cli import tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.database_command import ask
from dmpd.cloud_registry import query
from dmpd.cloud_registry.query import Rae
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "list RAEs"
_COLUMNS: Final = ("rae", "reachable", "state", "heard", "devices", "online", "outbox", "lan", "clock", "version")


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--canary", action="store_true", help="also the canary's own")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    return ask(args, lambda connection: _show(connection, args))


def _show(connection: Connection, args: argparse.Namespace) -> int:
    found = query.raes(connection, canary=args.canary)
    if args.json:
        tables.print_json(found)
    else:
        _print(found)
    return exit_codes.OK if found else exit_codes.DIFFERENT


def _print(found: list[Rae]) -> None:
    table = tables.table(_COLUMNS, right=("devices", "online", "outbox"))
    for rae in found:
        status = rae.status
        table.add_row(
            rae.rae,
            "yes" if rae.reachable else "no",
            tables.state_text(rae.state),
            tables.instant(rae.heard_at),
            str(rae.devices),
            str(rae.online),
            tables.text(status and status.outbox_rows),
            tables.text(status and status.lan),
            tables.text(status and status.clock),
            tables.text(status and status.version),
        )
    console = tables.console()
    console.print(table)
    console.print(f"{len(found)} RAEs")
