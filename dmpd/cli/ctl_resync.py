"""``dmpctl resync --rae SERIAL | --all``: have RAEs send the complete record of every device they hold.

For rows that are doubted although nothing says so: a database restored from an old backup, an edit by hand. (Rows that
are known to have missed something heal by themselves.) RAEs are asked one after the other, so that their checkpoints
come at --rate; one that cannot be reached is not asked. A RAE obeys whom its configuration lists (``rae_verbs_from``,
normally ``op-*``).

Exit codes: 0 every RAE has sent, 1 some have not (they are listed), or there is none, 64 wrong usage, 69 Kafka or the
database does not answer, 78 the configuration or the database's schema is wrong.
"""

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from dmpd.cli import arguments, tables
from dmpd.cli.config import CloudConfig, add_config_argument, load_cloud_config
from dmpd.cli.database_command import ask
from dmpd.cli.resync import Asked, Resync, Target
from dmpd.cloud_registry import query
from dmpd.model.requests import LIFETIME_DEFAULT_S
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection
from dmpd.runtime.kafka import Producer, ensure_reachable
from dmpd.runtime.kafka_admin import list_end_offsets
from dmpd.runtime.kafka_reader import TopicReader

HELP: Final = "have RAEs send all their devices' records again"
RATE: Final = 200.0
_REACH_S: Final = 10.0
_SAY_EVERY_S: Final = 5.0
_COLUMNS: Final = ("rae", "devices", "outcome", "after", "detail")


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--rae", type=arguments.rae, action="append", metavar="SERIAL", help="this one; may be repeated")
    which.add_argument("--all", action="store_true", help="all that can be reached")
    parser.add_argument(
        "--rate",
        type=arguments.rate,
        default=RATE,
        metavar="N",
        help=f"at most N devices' records per second ({RATE:g}; 0: all RAEs at once)",
    )
    parser.add_argument("--canary", action="store_true", help="with --all: also the canary's own")
    parser.add_argument(
        "--lifetime",
        type=arguments.lifetime,
        default=LIFETIME_DEFAULT_S,
        metavar="S",
        help=f"a RAE that does not get the request within S seconds is given up ({LIFETIME_DEFAULT_S})",
    )
    parser.add_argument(
        "--as", dest="requester", type=arguments.operator, default=arguments.default_operator(), metavar="op-NAME"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    targets: list[Target] = []

    def look(connection: Connection) -> int:
        targets.extend(_targets(connection, args))
        return exit_codes.OK

    code = ask(args, look)
    if code != exit_codes.OK:
        return code
    if not targets:
        print("dmpctl resync: no RAE was ever heard of", file=sys.stderr)
        return exit_codes.DIFFERENT
    found = _resync(config, targets, args)
    if args.json:
        tables.print_json(found)
    else:
        _print(found)
    return exit_codes.OK if all(one.state == "done" for one in found) else exit_codes.DIFFERENT


def _targets(connection: Connection, args: argparse.Namespace) -> list[Target]:
    if args.all:
        seen = query.raes(connection, canary=args.canary)
    else:
        seen = [one for rae in dict.fromkeys(args.rae) for one in query.raes(connection, rae=rae)]
        known = {one.rae for one in seen}
        unknown = [Target(rae=rae, devices=0, reachable=False) for rae in dict.fromkeys(args.rae) if rae not in known]
        return [*(_target(one) for one in seen), *unknown]
    return [_target(one) for one in seen]


def _target(one: query.Rae) -> Target:
    return Target(rae=one.rae, devices=one.devices, reachable=one.reachable)


def _resync(config: CloudConfig, targets: Sequence[Target], args: argparse.Namespace) -> list[Asked]:
    ensure_reachable(config.kafka, "dmpctl", _REACH_S)
    topics = config.topics
    partitions = len(list_end_offsets(config.kafka, topics.cmd))
    reader = TopicReader(config.kafka, topics.rsp, start=list_end_offsets(config.kafka, topics.rsp))
    with contextlib.closing(reader), contextlib.closing(Producer(config.kafka, "dmpctl-resync")) as producer:
        resync = Resync(
            producer=producer,
            responses=reader,
            topic=topics.cmd,
            partitions=partitions,
            requester=args.requester,
            lifetime_s=args.lifetime,
        )
        return resync.run(targets, rate=args.rate, progress=_Progress(len(targets)))


class _Progress:
    """One line every 5 s, for whoever waits."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._say_at_s = time.monotonic() + _SAY_EVERY_S

    def __call__(self, asked: int, settled: int) -> None:
        if time.monotonic() >= self._say_at_s:
            self._say_at_s = time.monotonic() + _SAY_EVERY_S
            print(f"asked {asked} of {self._total} RAEs, {settled} have answered", file=sys.stderr)


def _print(found: Sequence[Asked]) -> None:
    table = tables.table(_COLUMNS, right=("devices", "after"))
    for one in found:
        table.add_row(
            one.rae, str(one.devices), one.state, tables.duration(one.seconds), tables.shown(one.detail or None)
        )
    console = tables.console()
    console.print(table)
    counts = Counter(one.state for one in found)
    console.print(f"{len(found)} RAEs: " + ", ".join(f"{count} {state}" for state, count in counts.most_common()))
