"""``dmpctl device ID``: everything known of one device session; ID may be the beginning of its id.

Exit codes: 0 found (or --watch was ended by Ctrl-C), 1 no such session, 2 several begin like that (they are listed), 64
wrong usage, 69 the database does not answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
from typing import Final

import msgspec
from rich.console import Group, RenderableType

from dmpd.cli import arguments, session_choice, showing, tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.showing import View
from dmpd.cloud_registry import query
from dmpd.cloud_registry.query import DeviceDetail
from dmpd.model.record import CORE_FIELDS
from dmpd.runtime.database import Connection

HELP: Final = "show one device"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    session_choice.add_arguments(parser)
    parser.add_argument("--events", type=arguments.count, default=20, metavar="N", help="newest events (default 20)")
    showing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return showing.show(args, lambda connection: _look(connection, args))


def _look(connection: Connection, args: argparse.Namespace) -> View:
    key = session_choice.find(connection, args)
    detail = query.device(connection, *key, events_max=args.events)
    if detail is None:  # removed since it was found
        raise session_choice.absent(args)
    return View(detail, lambda: _shown(detail))


def _shown(detail: DeviceDetail) -> RenderableType:
    row = detail.row
    facts = tables.table(("", ""))
    facts.add_row("session", row.session)
    facts.add_row("rae", f"{row.rae} ({'reachable' if detail.reachable else 'unreachable'})")
    for name in CORE_FIELDS:
        facts.add_row(name, tables.shown(getattr(row.record, name)))
    facts.add_row("position", f"epoch {row.epoch}, rev {row.rev}, seq {row.seq}")
    facts.add_row("changed", tables.instant(row.changed_at))
    place = f"partition {detail.kafka_partition}, offset {detail.kafka_offset}"
    facts.add_row("stored", f"{tables.instant(detail.applied_at)}, {place}")
    facts.add_row("", ", ".join(_conditions(detail)))
    parts: list[RenderableType] = [facts]
    if row.record.interfaces:
        interfaces = tables.table(("mac", "ip4", "ip6", "hostname", "port", "vendor"), title="\ninterfaces")
        for one in row.record.interfaces:
            cells = (one.mac, one.ip4, " ".join(one.ip6), one.hostname, one.port, one.oui_vendor)
            interfaces.add_row(*map(tables.shown, cells))
        parts.append(interfaces)
    if row.record.attributes:
        attributes = tables.table(("attribute", "value"), title="\nattributes")
        for name, value in sorted(row.record.attributes.items()):
            attributes.add_row(tables.shown(name), tables.shown(bytes(value).decode()))
        parts.append(attributes)
    if detail.events:
        events = tables.table(("at", "event", "detail"), title="\nevents, newest first")
        for event in detail.events:
            events.add_row(
                tables.instant(event.at),
                tables.shown(event.code),
                tables.shown(msgspec.json.encode(event.detail).decode()),
            )
        parts.append(events)
    return Group(*parts)


def _conditions(detail: DeviceDetail) -> list[str]:
    row = detail.row
    said = []
    if row.closed is not None:
        successor = f", continued as {row.successor}" if row.successor else ""
        said.append(f"closed: {row.closed}{successor}")
    if row.stale:
        said.append("stale: something was missed, a checkpoint will heal it")
    if row.absent:
        said.append("absent: its RAE does not list it")
    return said or ["exact"]
