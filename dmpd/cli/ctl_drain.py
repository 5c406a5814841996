"""``dmpctl drain PROGRAM | --at BIND``: end a daemon in order, and wait until it has ended.

What TERM does: it accepts no more, finishes what it has, and ends within its own deadline. Under supervisord it stays
EXITED until ``supervisorctl start``. ``--at`` drains whatever listens there, also a ``dmpd stream-run --health BIND``.
On a router, ``dmpctl local drain`` drains its Local Registry.

Exit codes: 0 it has ended, 1 it did not within --timeout, 64 wrong usage, 69 no daemon answers, 78 the configuration is
wrong.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from dmpd.cli import daemons, plain
from dmpd.cli.arguments import seconds
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import exit_codes

HELP: Final = "end a daemon in order, and wait for its end"
_LOOK_EVERY_S: Final = 0.2
_SAY_EVERY_S: Final = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    daemons.add_which_arguments(parser)
    add_config_argument(parser, lab=True)
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="S", help="for its end (default 60 s)")
    parser.add_argument("--json", action="store_true", help="for programs: one line at the end")


def run(args: argparse.Namespace) -> int:
    at = args.at or daemons.bind_of(load_cloud_config(args), args.program)
    again = f"supervisorctl start {args.program}" if args.program else ""
    return drain(at, args.program, timeout_s=args.timeout, as_json=args.json, again=again)


def drain(at: str, program: str | None, *, timeout_s: float, as_json: bool, again: str) -> int:
    """Have the daemon at ``at`` end, and say how that went; ``again`` starts it again. Returns the exit code."""
    before = daemons.status(at)
    name = program or str(before.get("program", at))
    try:
        daemons.order(at, "/drain")
    except daemons.RefusedError as error:
        print(f"dmpctl drain: {error}", file=sys.stderr)
        return exit_codes.DIFFERENT
    started_s = time.monotonic()
    ended, left = _wait(at, before, started_s=started_s, timeout_s=timeout_s, silent=as_json)
    took_s = time.monotonic() - started_s
    if as_json:
        plain.print_json({"program": name, "ended": ended, "seconds": round(took_s, 1), "left": left})
    elif ended:
        hint = f"; start it again with: {again}" if again else ""
        print(f"{name} has ended after {took_s:.1f} s{hint}")
    else:
        print(
            f"dmpctl drain: {name} has not ended within {timeout_s:g} s ({left}); it goes on draining until"
            " its own deadline, a second TERM ends it at once",
            file=sys.stderr,
        )
    return exit_codes.OK if ended else exit_codes.DIFFERENT


def _wait(at: str, before: Mapping[str, Any], *, started_s: float, timeout_s: float, silent: bool) -> tuple[bool, str]:
    """Until it has ended or the time is over; says what is left meanwhile. Returns whether, and what was left last."""
    left, said, say_at_s = left_of(before), "", 0.0
    while time.monotonic() - started_s < timeout_s:
        try:
            now = daemons.status(at)
        except daemons.DaemonGoneError:
            return True, left
        if now.get("pid") != before.get("pid"):
            return True, left  # ended, and somebody has started it again
        left, now_s = left_of(now), time.monotonic()
        if not silent and left != said and now_s >= say_at_s:
            said, say_at_s = left, now_s + _SAY_EVERY_S
            print(f"draining: {left}", flush=True)
        time.sleep(_LOOK_EVERY_S)
    return False, left


def left_of(status: Mapping[str, Any]) -> str:
    """What a daemon still has to do, by its own account."""
    if "partitions" in status:
        open_records = {number: one.get("open_records", 0) for number, one in status["partitions"].items()}
        busy = [number for number, count in open_records.items() if count]
        if not busy:
            return "nothing left in the rings"
        return f"{sum(open_records.values())} records left in {len(busy)} partitions ({', '.join(busy)})"
    if "in_flight_messages" in status:
        return f"{status['in_flight_messages']} messages in flight, {status.get('unacknowledged', 0)} not acknowledged"
    if "outbox_rows" in status:
        return f"{status['outbox_rows']} rows in the outbox"
    return "it does not say what is left"
