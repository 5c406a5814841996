"""``dmpctl stream``: the partitions of the Cloud Registry (or, ``--at``, other stream) that listens here, and verbs.

``status`` shows each one. ``pause``: nothing of it is fetched until ``resume``. ``resume`` also ends a halt (most of
the last records were invalid, from many sources) once its cause is gone. ``skip`` makes dead letters of what a halted
partition has in its ring, with the reason ``skipped``, and goes on behind it. A verb holds while this instance owns the
partition.

Exit codes: 0 done (status: all partitions run), 1 not done (status: one stands still), 64 wrong usage, 69 no
daemon answers, 78 the configuration is wrong.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from dmpd.cli import daemons, tables
from dmpd.cli.arguments import bind, partition
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import exit_codes

HELP: Final = "partitions of the Cloud Registry here: status, pause, resume, skip"
_PROGRAM: Final = "cloud-registry"
_FIRST: Final = ("state", "lag", "lag_s", "eta_s", "next_offset", "committed", "open_records", "ring_used_bytes")
_LAST: Final = ("worker_pid", "restarts", "dead_letters")
_STYLES: Final = {"running": "green", "halted": "red", "skipping": "yellow", "paused": "yellow", "waiting": "yellow"}
_SENTENCES: Final = ("halted_by", "waits_for")
"""Below the table."""
_HINT: Final = "{}: look at dmpctl dead-letters list, then say dmpctl stream resume or skip --partition N"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("status", "how each partition is"),
        ("pause", "fetch nothing of it until resume"),
        ("resume", "go on after a pause or a halt"),
        ("skip", "give up what a halted one has in its ring"),
    ):
        one = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_config_argument(one, lab=True)
        one.add_argument(
            "--at",
            type=bind,
            metavar="BIND",
            help="host:port or unix:/path of any stream's health server on this machine",
        )
        which = one.add_mutually_exclusive_group(required=name != "status")
        which.add_argument("--partition", type=partition, metavar="N", help="only this one")
        which.add_argument("--all", action="store_true", help="all that the instance here owns")
        one.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    at = args.at or daemons.bind_of(load_cloud_config(args), _PROGRAM)
    return _status(at, args) if args.action == "status" else _order(at, args)


def _status(at: str, args: argparse.Namespace) -> int:
    said = daemons.status(at)
    partitions: dict[str, dict[str, Any]] = said.get("partitions", {})
    if args.partition is not None:
        partitions = {number: one for number, one in partitions.items() if number == str(args.partition)}
        if not partitions:
            owned = ", ".join(said.get("partitions", {})) or "none"
            print(f"dmpctl stream: partition {args.partition} is not owned here (owned: {owned})", file=sys.stderr)
            return exit_codes.DIFFERENT
    if args.json:
        tables.print_json({**said, "partitions": partitions})
    else:
        _print(said, partitions)
    moves = all(one.get("state") not in _STYLES or one.get("state") == "running" for one in partitions.values())
    return exit_codes.OK if moves else exit_codes.DIFFERENT


def _print(said: Mapping[str, Any], partitions: Mapping[str, dict[str, Any]]) -> None:
    console = tables.console()
    reason = f": {said['reason']}" if said.get("reason") else ""
    topic, group, lag = (tables.text(said.get(name)) for name in ("topic", "group", "lag"))
    pid = f" (pid {said['pid']})" if said.get("pid") else ""
    console.print(f"{said.get('program')}{pid} is {said.get('state')}{reason}")
    console.print(f"topic {topic}, group {group}, {len(partitions)} partitions, lag {lag}")
    columns = _columns(partitions)
    table = tables.table(("partition", *(name.replace("_", " ") for name in columns)), right=("partition",))
    for column in table.columns[2:]:
        column.justify = "right"
    for number, one in partitions.items():
        cells = [_state(one.get("state")) if name == "state" else tables.cell(one.get(name)) for name in columns]
        table.add_row(number, *cells)
    if partitions:
        console.print(table)
    for number, one in partitions.items():
        if one.get("waits_for"):
            console.print(f"partition {number}: the sink takes nothing: {tables.printable(one['waits_for'])}")
        if one.get("halted_by"):
            console.print(_HINT.format(f"partition {number}: {_why(one['halted_by'])}"))


def _columns(partitions: Mapping[str, dict[str, Any]]) -> list[str]:
    """What the pictures have, whatever that is: an older or newer daemon is shown whole too."""
    found = dict.fromkeys(name for one in partitions.values() for name in one if name not in _SENTENCES)
    middle = [name for name in found if name not in (*_FIRST, *_LAST)]
    return [*(name for name in _FIRST if name in found), *middle, *(name for name in _LAST if name in found)]


def _state(state: str | None) -> Text:
    return Text(tables.text(state), style=_STYLES.get(state or "", ""))


def _why(halted_by: Mapping[str, Any]) -> str:
    examples = tables.printable(", ".join(halted_by["examples"]))
    sources = f"{halted_by['sources']} sources ({examples}, ...)"
    return f"{halted_by['invalid']} of its last 1000 records are invalid, from {sources}"


def _order(at: str, args: argparse.Namespace) -> int:
    target = {"all": True} if args.all else {"partition": args.partition}
    try:
        results = daemons.order(at, f"/stream/{args.action}", target)["partitions"]
    except daemons.RefusedError as error:
        print(f"dmpctl stream {args.action}: {error}", file=sys.stderr)
        return exit_codes.DIFFERENT
    if args.json:
        tables.print_json(results)
    else:
        for number, result in results.items():
            print(f"partition {number}: {result['said']}")
    done = args.action != "skip" or any(result["changed"] for result in results.values())
    return exit_codes.OK if done else exit_codes.DIFFERENT
