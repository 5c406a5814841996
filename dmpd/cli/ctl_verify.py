"""``dmpctl verify``: Local Registry stores against database rows, record by record, attributes and tombstones included.

Reads the stores' files, so it runs where they are: on the lab (whose own are the default), or on copies. Devices may
keep changing meanwhile: a session is judged when its store stood still around the reading of its row, and what differs
is read again until --wait is over.

Exit codes: 0 equal, 1 something differs (it is listed), 64 wrong usage, 69 the database or a store cannot be read, 78
the configuration or the database's schema is wrong.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from dmpd.cli import tables
from dmpd.cli.arguments import seconds
from dmpd.cli.config import add_config_argument
from dmpd.cli.database_command import ask
from dmpd.cli.verification import Verification, stores_below, verify
from dmpd.local_registry.store import DATABASE_NAME, StoreError
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "compare the RAEs' stores with the database, record by record"
_SHOWN_MAX: Final = 200
_CELL_MAX: Final = 80


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument(
        "--stores", type=Path, action="append", default=[], metavar="DIR", help="folder with DIR/{serial}/registry.db"
    )
    parser.add_argument(
        "--store",
        type=_store,
        action="append",
        default=[],
        metavar="SERIAL=DIR",
        help="state folder of one RAE, DIR/registry.db",
    )
    parser.add_argument(
        "--wait", type=seconds, default=30.0, metavar="S", help="for what is on its way (default 30 s; 0: look once)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    stores = dict(args.store)
    for folder in args.stores:
        stores |= stores_below(folder)
    of_lab = not args.store and not args.stores
    if of_lab:
        from dmpd.cli import this_lab  # noqa: PLC0415 - the lab's libraries are not installed everywhere

        stores = this_lab.stores()
    if not stores:
        print("dmpctl verify: no stores: name some with --stores DIR or --store SERIAL=DIR", file=sys.stderr)
        return exit_codes.USAGE
    try:
        return ask(args, lambda connection: _verify(connection, stores, args, complete=of_lab))
    except StoreError as error:
        print(f"dmpctl verify: a store cannot be read: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE


def _verify(connection: Connection, stores: dict[str, Path], args: argparse.Namespace, *, complete: bool) -> int:
    found = verify(stores, connection, wait_s=args.wait, complete=complete)
    if args.json:
        tables.print_json({"equal": found.equal, **_fields(found)})
    else:
        _print(found)
    return exit_codes.OK if found.equal else exit_codes.DIFFERENT


def _fields(found: Verification) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _print(found: Verification) -> None:
    console = tables.console()
    if found.differences:
        table = tables.table(("rae", "session", "kind", "field", "store", "database"))
        for each in found.differences[:_SHOWN_MAX]:
            table.add_row(each.rae, each.session, each.kind, each.field, each.edge[:_CELL_MAX], each.cloud[:_CELL_MAX])
        console.print(table)
        if len(found.differences) > _SHOWN_MAX:
            console.print(f"... {len(found.differences) - _SHOWN_MAX} more (--json shows all)")
    counts = (
        f"missing {found.missing}, wrong {found.wrong}, phantoms {found.phantoms}, unsettled {found.unsettled}"
        if found.differences
        else "no difference"
    )
    console.print(
        f"{found.compared} device sessions of {found.raes} RAEs, {found.committed} changes, "
        f"{found.seconds:.1f} s: {counts}"
    )


def _store(text: str) -> tuple[str, Path]:
    serial, separator, folder = text.partition("=")
    if not (serial and separator and folder):
        raise argparse.ArgumentTypeError("expected SERIAL=DIR")
    return serial, Path(folder) / DATABASE_NAME
