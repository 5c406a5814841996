"""``dmpctl health PROGRAM | --at BIND | --of-pid PID``: whether a daemon is alive, by its ``/healthz``.

Alive is not ready: a daemon that waits for Kafka, the broker or the database is alive, and starting it again would not
help; ``dmpctl status`` tells more. ``--of-pid`` asks the daemon that the process was started as, with the ``--config``
of its command line: what the image's HEALTHCHECK asks of process 1.

Exit codes: 0 alive, 1 not, 64 wrong usage, 78 the configuration is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dmpd.cli import daemons
from dmpd.cli.arguments import bind
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import exit_codes, health

HELP: Final = "whether a daemon is alive"
_TIMEOUT_S: Final = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "program", nargs="?", metavar="PROGRAM", choices=daemons.PROGRAMS, help=" or ".join(daemons.PROGRAMS)
    )
    which.add_argument("--at", type=bind, metavar="BIND", help="host:port or unix:/path of any daemon's health server")
    which.add_argument("--of-pid", type=int, metavar="PID", help="what this process was started as")
    add_config_argument(parser, lab=True)


def run(args: argparse.Namespace) -> int:
    if args.of_pid is not None:
        program = _take_command_line(args)
        if program is None:
            print(f"dmpctl health: process {args.of_pid} is none of {', '.join(daemons.PROGRAMS)}", file=sys.stderr)
            return exit_codes.DIFFERENT
        args.program = program
    at = args.at or daemons.bind_of(load_cloud_config(args), args.program)
    try:
        code, body = health.fetch(at, "/healthz", timeout_s=_TIMEOUT_S)
    except OSError as error:
        print(f"no daemon answers at {at}: {error.strerror or error}")
        return exit_codes.DIFFERENT
    print(body.decode().strip())
    return exit_codes.OK if code == 200 else exit_codes.DIFFERENT


def _take_command_line(args: argparse.Namespace) -> str | None:
    """The program that the process was started as, None if it is none of ours; its ``--config`` becomes ours."""
    try:
        words = Path(f"/proc/{args.of_pid}/cmdline").read_text().split("\0")
    except OSError:
        return None
    args.config = _config_of(words) or args.config
    return next((word for word in words if word in daemons.PROGRAMS), None)


def _config_of(words: Sequence[str]) -> Path | None:
    for place, word in enumerate(words):
        if word == "--config" and place + 1 < len(words):
            return Path(words[place + 1])
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
    return None
