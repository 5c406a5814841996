"""``dmpctl device ID``: everything known of one device session; ID may be the beginning of its id.

Exit codes: 0 found, 1 no such session, 2 several begin like that (they are listed), 64 wrong usage, 69 the database
does not answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
import sys
from typing import Final

import msgspec

from dmpd.cli import tables
from dmpd.cli.config import add_config_argument
from dmpd.cli.database_command import ask
from dmpd.cloud_registry import query
from dmpd.cloud_registry.query import DeviceDetail
from dmpd.model.record import CORE_FIELDS
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection

HELP: Final = "show one device"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("id", metavar="ID", help="device session id, or how it begins")
    parser.add_argument("--rae", help="only of this RAE")
    parser.add_argument("--events", type=int, default=20, metavar="N", help="newest events (default 20)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    return ask(args, lambda connection: _show(connection, args))


def _show(connection: Connection, args: argparse.Namespace) -> int:
    found = query.find_sessions(connection, args.id, rae=args.rae)
    if len(found) > 1:
        print(f"dmpctl device: {len(found)} sessions begin with {args.id}:", file=sys.stderr)
        for rae, session in found:
            print(f"  {session} of {rae}", file=sys.stderr)
        return exit_codes.AMBIGUOUS
    detail = query.device(connection, *found[0], events_max=args.events) if found else None
    if detail is None:
        print(f"dmpctl device: no device session {args.id}", file=sys.stderr)
        return exit_codes.DIFFERENT
    if args.json:
        tables.print_json(detail)
    else:
        _print(detail)
    return exit_codes.OK


def _print(detail: DeviceDetail) -> None:
    row = detail.row
    facts = tables.table(("", ""))
    facts.add_row("session", row.session)
    facts.add_row("rae", f"{row.rae} ({'reachable' if detail.reachable else 'unreachable'})")
    for name in CORE_FIELDS:
        facts.add_row(name, tables.text(getattr(row.record, name)))
    facts.add_row("position", f"epoch {row.epoch}, rev {row.rev}, seq {row.seq}")
    facts.add_row("changed", tables.instant(row.changed_at))
    place = f"partition {detail.kafka_partition}, offset {detail.kafka_offset}"
    facts.add_row("stored", f"{tables.instant(detail.applied_at)}, {place}")
    facts.add_row("", ", ".join(_conditions(detail)))
    console = tables.console()
    console.print(facts)
    if row.record.interfaces:
        interfaces = tables.table(("mac", "ip4", "ip6", "hostname", "port", "vendor"), title="\ninterfaces")
        for one in row.record.interfaces:
            cells = (one.mac, one.ip4, " ".join(one.ip6), one.hostname, one.port, one.oui_vendor)
            interfaces.add_row(*map(tables.text, cells))
        console.print(interfaces)
    if row.record.attributes:
        attributes = tables.table(("attribute", "value"), title="\nattributes")
        for name, value in sorted(row.record.attributes.items()):
            attributes.add_row(name, bytes(value).decode())
        console.print(attributes)
    if detail.events:
        events = tables.table(("at", "event", "detail"), title="\nevents, newest first")
        for event in detail.events:
            events.add_row(tables.instant(event.at), event.code, msgspec.json.encode(event.detail).decode())
        console.print(events)


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
