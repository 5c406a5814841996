"""``dmpctl rae wait SERIAL``: from the cloud, wait until a RAE is there: it said ``ready``, and is reachable.

For who enrolls a router and wants to see it arrive. Says what is missing meanwhile.

Exit codes: 0 it is there, 1 not within --timeout (what was last seen is shown), 64 wrong usage, 69 the database does
not answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
import sys
import time
from typing import Final

from dmpd.cli import tables
from dmpd.cli.arguments import seconds
from dmpd.cli.config import add_config_argument
from dmpd.cli.database_command import ask
from dmpd.cloud_registry import query
from dmpd.cloud_registry.query import Rae
from dmpd.model.principals import is_rae
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "wait for a RAE to arrive"
_LOOK_EVERY_S: Final = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    wait = verbs.add_parser("wait", help="until it is ready and reachable")
    wait.add_argument("serial", type=_serial, metavar="SERIAL", help="of the RAE")
    wait.add_argument("--timeout", type=seconds, default=300.0, metavar="S", help="default 300 s")
    wait.add_argument("--json", action="store_true", help="for programs: one line at the end")
    add_config_argument(wait, lab=True)


def run(args: argparse.Namespace) -> int:
    return ask(args, lambda connection: _wait(connection, args))


def _serial(text: str) -> str:
    if not is_rae(text):
        raise argparse.ArgumentTypeError(f"expected the serial of a RAE, got {text!r}")
    return text


def _wait(connection: Connection, args: argparse.Namespace) -> int:
    deadline_s = time.monotonic() + args.timeout
    said = ""
    while True:
        found = next(iter(query.raes(connection, rae=args.serial)), None)
        lacks = lacking(found)
        if lacks is None or time.monotonic() >= deadline_s:
            break
        if lacks != said and not args.json:
            said = lacks
            print(f"{args.serial}: {lacks}", flush=True)
        time.sleep(_LOOK_EVERY_S)
    if args.json:
        tables.print_json({"rae": args.serial, "arrived": lacks is None, "lacks": lacks, "found": found})
    elif found is not None and lacks is None:
        print(f"{args.serial}: ready, {found.devices} devices, heard {tables.instant(found.heard_at)}")
    else:
        print(f"dmpctl rae wait: {args.serial} has not arrived within {args.timeout:g} s: {lacks}", file=sys.stderr)
    return exit_codes.OK if lacks is None else exit_codes.DIFFERENT


def lacking(found: Rae | None) -> str | None:
    """What a RAE still lacks to count as arrived; None = nothing. Pure."""
    if found is None:
        return "nothing was heard of it yet"
    if found.status is None:
        return "devices of it were heard of, but no status"
    if not found.reachable:
        return f"its last word was {found.state}, {tables.instant(found.heard_at)}"
    return None if found.state == "ready" else f"it is {found.state}"
