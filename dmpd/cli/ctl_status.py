"""``dmpctl status``: how the parts are and how far each is behind.

Without names: bridge, Cloud Registry, Kafka and database, and of the daemons that not everybody runs those that answer.
With names: those parts alone, as in a container, where the others listen elsewhere.

Exit codes: 0 everything that was asked answers and is ready, 1 something does not or is not, 64 wrong usage, 78 the
configuration is wrong.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmpd.cli.config import CloudConfig, add_config_argument, load_cloud_config
from dmpd.cli.daemons import PROGRAMS, bind_of
from dmpd.runtime import exit_codes, health, kafka_admin
from dmpd.runtime.database import DatabaseUnreachableError, connect
from dmpd.runtime.kafka import KafkaRefusedError, KafkaUnreachableError

HELP: Final = "health of the parts, and lag"
_NOT_READY: Final = 1
PARTS: Final = (*PROGRAMS, "kafka", "database")
OPTIONAL: Final = ("access", "canary")
"""Of a deployment; asked by name they must be there."""


class PartHealth(msgspec.Struct, frozen=True):
    """One part as ``dmpctl`` finds it."""

    name: str
    ready: bool
    said: str
    details: dict[str, Any] = {}
    answers: bool = True


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument(
        "parts",
        nargs="*",
        type=_name,
        metavar="PART",
        help=f"only these of {', '.join(PARTS)}; default: all, {' and '.join(OPTIONAL)} where they answer",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    settings = load_cloud_config(args)
    found = [
        part
        for name in args.parts or PARTS
        if (part := _part(name, settings)).answers or args.parts or name not in OPTIONAL
    ]
    if args.json:
        print(msgspec.json.encode(found).decode())
    else:
        Console(highlight=False, markup=False).print(_table(found))
    return exit_codes.OK if all(part.ready for part in found) else _NOT_READY


def _name(text: str) -> str:
    if text not in PARTS:  # argparse's choices refuse that there is none
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PARTS)}, got {text!r}")
    return text


def _part(name: str, settings: CloudConfig) -> PartHealth:
    if name == "kafka":
        return _kafka(settings)
    if name == "database":
        return _database(settings)
    return _daemon(name, bind_of(settings, name))


def _daemon(name: str, bind: str) -> PartHealth:
    try:
        code, _ = health.fetch(bind, "/readyz")
        _, body = health.fetch(bind, "/status")
    except OSError as error:
        return PartHealth(name, ready=False, said=f"no answer at {bind}: {error}", answers=False)
    details: dict[str, Any] = json.loads(body)
    reason = details.get("reason")
    said = f"{details.get('state')}{f': {reason}' if reason else ''}{_stale(details)}"
    return PartHealth(name, ready=code == 200 and details.get("state") == "ready", said=said, details=details)


def _stale(details: dict[str, Any]) -> str:
    """Rows that wait for a checkpoint, of a Cloud Registry that has some."""
    reconciliation = details.get("reconciliation") or {}
    stale, away = reconciliation.get("stale"), reconciliation.get("last_pass", {}).get("unreachable", 0)
    return f"; {stale} rows are stale, {away} of them of RAEs that are away" if stale else ""


def _kafka(settings: CloudConfig) -> PartHealth:
    stream = settings.cloud_registry.stream
    try:
        lag = kafka_admin.group_lag(settings.kafka, stream.group, stream.topic)
        dead = kafka_admin.list_end_offsets(settings.kafka, stream.dead_letter_topic)
    except (KafkaUnreachableError, KafkaRefusedError) as error:
        return PartHealth("kafka", ready=False, said=str(error))
    details = {"lag": sum(lag.values()), "lag_by_partition": lag, "dead_letters": sum(dead.values())}
    said = f"lag {details['lag']} of {stream.group} in {stream.topic}, {details['dead_letters']} dead letters ever"
    return PartHealth("kafka", ready=True, said=said, details=details)


def _database(settings: CloudConfig) -> PartHealth:
    started_s = time.monotonic()
    try:
        with connect(settings.database, application="dmpctl") as connection:
            connection.execute("SELECT 1")
    except DatabaseUnreachableError as error:
        return PartHealth("database", ready=False, said=str(error))
    took_ms = (time.monotonic() - started_s) * 1000
    return PartHealth("database", ready=True, said=f"answers after {took_ms:.0f} ms")


def _table(found: Sequence[PartHealth]) -> Table:
    table = Table()
    for column in ("part", "ready", "what it says"):
        table.add_column(column, overflow="fold")
    for part in found:
        word = Text("yes", style="green") if part.ready else Text("no", style="red")
        table.add_row(part.name, word, part.said)
    return table
