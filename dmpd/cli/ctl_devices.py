"""``dmpctl devices``: the open device sessions, one line each.

Exit codes: 0 at least one device, 1 none, 64 wrong usage, 69 the database does not answer, 78 the configuration or the
database's schema is wrong.
"""

import argparse
from typing import Final, get_args

from dmpd.cli import tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.database_command import ask
from dmpd.cloud_registry import query
from dmpd.cloud_registry.query import Device
from dmpd.model.record import DeviceState
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "list devices"
_COLUMNS: Final = ("rae", "session", "state", "name", "model", "esn", "mac", "ip4", "rev", "changed", "")


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--rae", help="only devices of this RAE")
    parser.add_argument("--state", choices=get_args(DeviceState), help="only devices in this state")
    parser.add_argument("--canary", action="store_true", help="also the canary's own")
    parser.add_argument("--limit", type=int, default=10_000, metavar="N", help="at most N (default 10000)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    return ask(args, lambda connection: _show(connection, args))


def _show(connection: Connection, args: argparse.Namespace) -> int:
    found = query.devices(connection, rae=args.rae, state=args.state, canary=args.canary, limit=args.limit)
    if args.json:
        tables.print_json(found)
    else:
        _print(found)
    return exit_codes.OK if found else exit_codes.DIFFERENT


def _print(found: list[Device]) -> None:
    table = tables.table(_COLUMNS, right=("rev",))
    for device in found:
        table.add_row(
            device.rae,
            device.session,
            tables.state_text(device.state, doubtful=not device.reachable),
            tables.text(device.name or device.hostname),
            tables.text(" ".join(filter(None, (device.manufacturer, device.model)))),
            tables.text(device.esn),
            tables.text(device.mac),
            tables.text(device.ip4),
            str(device.rev),
            tables.instant(device.changed_at),
            remarks(device),
        )
    console = tables.console()
    console.print(table)
    console.print(f"{len(found)} devices")


def remarks(device: Device) -> str:
    """What to think of when reading the line."""
    said = []
    if not device.reachable:
        said.append("RAE unreachable")
    if device.stale:
        said.append("stale")
    if device.absent:
        said.append("absent")
    return ", ".join(said)
