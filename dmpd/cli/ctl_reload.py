"""``dmpctl reload PROGRAM | --at BIND``: have a daemon take its changed configuration, and wait until it has.

What HUP does: the daemon checks its configuration. If that is bad it says why and goes on with what it has; if it is
good, it drains and begins anew in the same process. ``--at`` reloads whatever listens there; on a router that is
``--at unix:/var/lib/dmpd/control.sock``.

Exit codes: 0 it has begun anew, 1 it has not within --timeout, 64 wrong usage, 69 no daemon answers, 78 the
configuration is wrong: the daemon's, or the one that says where it listens.
"""

import argparse
import sys
import time
from typing import Any, Final

from dmpd.cli import daemons
from dmpd.cli.arguments import seconds
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import exit_codes

HELP: Final = "have a daemon take its changed configuration"
_LOOK_EVERY_S: Final = 0.1
_BEGINNING: Final = "starting"


def configure(parser: argparse.ArgumentParser) -> None:
    daemons.add_which_arguments(parser)
    add_config_argument(parser, lab=True)
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="S", help="for its return (default 60 s)")


def run(args: argparse.Namespace) -> int:
    at = args.at or daemons.bind_of(load_cloud_config(args), args.program)
    before = daemons.status(at)
    name = args.program or str(before.get("program", at))
    try:
        daemons.order(at, "/reload")
    except daemons.RefusedError as error:
        print(f"{error}\ndmpctl reload: {name} goes on with what it has", file=sys.stderr)
        return exit_codes.CONFIG
    started_s = time.monotonic()
    now = _wait(at, str(before.get("started_at")), deadline_s=started_s + args.timeout)
    if now is None:
        print(
            f"dmpctl reload: {name} has not begun anew at {at} within {args.timeout:g} s; see its log",
            file=sys.stderr,
        )
        return exit_codes.DIFFERENT
    reason = f": {now['reason']}" if now.get("reason") else ""
    print(f"{name} has begun anew after {time.monotonic() - started_s:.1f} s; it is {now['state']}{reason}")
    return exit_codes.OK


def _wait(at: str, started_at: str, *, deadline_s: float) -> dict[str, Any] | None:
    """The daemon's status when it has begun anew and is past its start; None if it has not begun in time."""
    begun: dict[str, Any] | None = None
    while time.monotonic() < deadline_s:
        try:
            now = daemons.status(at)
        except daemons.DaemonGoneError:
            now = None
        if now is not None and now.get("started_at") != started_at:
            begun = now
            if now.get("state") != _BEGINNING:
                break
        time.sleep(_LOOK_EVERY_S)
    return begun
