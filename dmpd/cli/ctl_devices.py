"""``dmpctl devices``: the open device sessions, one line each.

Filters narrow together. Those by RAE, ESN, MAC, address and --stale are found by an index; --state, --attribute and
--since have to look at every device session, unless one of the former stands with them.

Exit codes: 0 at least one device (or --watch was ended by Ctrl-C), 1 none, 64 wrong usage, 69 the database does not
answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
from collections.abc import Sequence
from typing import Any, Final, get_args

from rich.console import Group, RenderableType

from dmpd.cli import arguments, showing, tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.showing import View
from dmpd.cloud_registry import devices
from dmpd.cloud_registry.device_filter import DeviceFilter, ip_of, mac_of
from dmpd.cloud_registry.devices import Device
from dmpd.model.record import DeviceState
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "list devices"
LIMIT: Final = 10_000
_COLUMNS: Final = ("rae", "session", "state", "name", "model", "esn", "mac", "ip4", "rev", "changed", "")


class _AddAttribute(argparse.Action):
    """Collects attributes by name. Twice the same name is what no device can have, or a slip."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        name, text = values
        known = getattr(namespace, self.dest)
        if name in known:
            raise argparse.ArgumentError(self, f"{name!r:.64} was given twice, and a device has one value of it")
        setattr(namespace, self.dest, known | {name: text})


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--rae", type=arguments.rae, help="only devices of this RAE")
    parser.add_argument("--state", choices=get_args(DeviceState), help="only devices in this state")
    parser.add_argument("--esn", type=arguments.printable, help="only with this ESN")
    parser.add_argument("--mac", type=arguments.checked(mac_of), help="only with this MAC, in any spelling")
    parser.add_argument("--ip", type=arguments.checked(ip_of), help="only with this IPv4 or IPv6 address")
    parser.add_argument(
        "--attribute",
        type=arguments.attribute,
        action=_AddAttribute,
        default={},
        metavar="NAME=VALUE",
        help="only with this attribute; VALUE is JSON, or a plain text; may be repeated, once for each name",
    )
    parser.add_argument("--stale", action="store_true", help="only those that may have missed something")
    parser.add_argument(
        "--since",
        type=arguments.since,
        metavar="WHEN",
        help="only those whose row was written since then: 30m, 2h, 3d, or 2026-11-25T04:00:00Z",
    )
    parser.add_argument("--canary", action="store_true", help="also the canary's own")
    parser.add_argument("--sort", choices=devices.SORTS, default="rae", help="by RAE and session if not said otherwise")
    parser.add_argument("--reverse", action="store_true", help="the greatest, or newest, first")
    parser.add_argument(
        "--limit", type=arguments.count, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})"
    )
    showing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    wanted = DeviceFilter(
        rae=args.rae,
        state=args.state,
        esn=args.esn,
        mac=args.mac,
        ip=args.ip,
        attributes=args.attribute,
        stale=args.stale,
        since=args.since,
        canary=args.canary,
    )

    def look(connection: Connection) -> View:
        found = devices.find(connection, wanted, limit=args.limit, sort=args.sort, descending=args.reverse)
        code = exit_codes.OK if found else exit_codes.DIFFERENT
        return View(found, lambda: _shown(found, args.limit), code)

    return showing.show(args, look)


def _shown(found: Sequence[Device], limit: int) -> RenderableType:
    table = tables.table(_COLUMNS, right=("rev",))
    for device in found:
        table.add_row(
            device.rae,
            device.session,
            tables.state_text(device.state, doubtful=not device.reachable),
            tables.shown(device.name or device.hostname),
            tables.shown(" ".join(filter(None, (device.manufacturer, device.model)))),
            tables.shown(device.esn),
            tables.text(device.mac),
            tables.text(device.ip4),
            str(device.rev),
            tables.instant(device.changed_at),
            remarks(device),
        )
    more = "; there may be more (--limit)" if len(found) == limit else ""
    return Group(table, f"{len(found)} device{'' if len(found) == 1 else 's'}{more}")


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
