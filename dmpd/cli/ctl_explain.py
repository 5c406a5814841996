"""``dmpctl explain ID``: why the row of one device session looks as it does; ID may be the beginning of its id.

Says whether the row is exact, which record made it so and how long each hop took, whether its RAE can be reached and
has more to send, what waits in Kafka, when a checkpoint was asked for, and its last dead letter. Without Kafka it says
what the database knows.

Exit codes: 0 found (or --watch was ended by Ctrl-C), 1 no such session, 2 several begin like that (they are listed), 64
wrong usage, 69 the database does not answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from dmpd.cli import arguments, kafka_evidence, session_choice, showing, tables
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cli.dead_letter_choice import SCAN
from dmpd.cli.showing import View
from dmpd.cloud_registry import query
from dmpd.cloud_registry.devices import clock
from dmpd.cloud_registry.explain import Explanation, InKafka, explain
from dmpd.cloud_registry.query import DeviceDetail
from dmpd.runtime.database import Connection
from dmpd.runtime.errors import UnavailableError

HELP: Final = "say why a device's row looks as it does"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    session_choice.add_arguments(parser)
    parser.add_argument(
        "--scan",
        type=arguments.count,
        default=SCAN,
        metavar="N",
        help=f"look at the newest N dead letters of each partition ({SCAN})",
    )
    showing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return showing.show(args, lambda connection: _look(connection, args))


def _look(connection: Connection, args: argparse.Namespace) -> View:
    key = session_choice.find(connection, args)
    device = query.device(connection, *key)
    if device is None:  # removed since it was found
        raise session_choice.absent(args)
    raes = query.raes(connection, rae=device.row.rae)
    kafka, problem = _ask_kafka(args, device)
    found = explain(device, raes[0] if raes else None, kafka, now=clock(connection), kafka_problem=problem)
    return View(found, lambda: _shown(found))


def _ask_kafka(args: argparse.Namespace, device: DeviceDetail) -> tuple[InKafka | None, str | None]:
    try:
        return kafka_evidence.collect(load_cloud_config(args), device, letters_max=args.scan), None
    except UnavailableError as error:
        return None, str(error)


def _shown(found: Explanation) -> RenderableType:
    row = found.device.row
    head = Text(f"{row.session} of {row.rae}", style="bold")
    why = [Text(f"• {tables.printable(sentence)}") for sentence in found.why]
    table = tables.table(("hop", "at", "clock", "after"), right=("after",), title="\nthe last change, hop by hop")
    for hop in found.hops:
        table.add_row(hop.name, f"{hop.at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z", hop.clock, tables.duration(hop.after_s))
    facts = tables.table(("", ""), title="\nthe row")
    facts.add_row("position", f"epoch {row.epoch}, rev {row.rev}, seq {row.seq}")
    facts.add_row("record", f"partition {found.device.kafka_partition}, offset {found.device.kafka_offset}")
    facts.add_row("written", tables.instant(found.device.applied_at))
    facts.add_row("state", tables.state_text(row.record.state, doubtful=not found.device.reachable))
    facts.add_row("stale, absent, closed", ", ".join(map(tables.cell, (row.stale, row.absent, row.closed or False))))
    if found.rae is not None and found.rae.status is not None:
        status = found.rae.status
        facts.add_row("RAE", f"{status.state}, epoch {status.epoch}, run {status.run}, last row {status.seq_high}")
        facts.add_row("heard of", f"{tables.instant(found.rae.heard_at)}, {tables.duration(found.rae.silence_s)} ago")
    return Group(head, *why, table, facts)
