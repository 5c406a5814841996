"""How dmpctl speaks with the cloud's daemons: where they listen, what they answer, and sentences when they do not."""

import argparse
import json
from collections.abc import Mapping
from typing import Any, Final

from dmpd.cli.arguments import bind
from dmpd.cli.config import CloudConfig
from dmpd.runtime import health
from dmpd.runtime.errors import UnavailableError

PROGRAMS: Final = ("bridge", "cloud-registry", "access", "canary")
"""The cloud's daemons, each with a section of its name in ``CloudConfig`` that has ``health_bind``."""
_ASK_TIMEOUT_S: Final = 15.0
"""Longer than a stream's loop may take to answer."""


class DaemonGoneError(UnavailableError):
    """Nobody answers where the daemon should listen."""


class RefusedError(Exception):
    """The daemon does not do what it was asked for; the text says why."""


def add_which_arguments(parser: argparse.ArgumentParser) -> None:
    """The daemon that a command is for: ``args.program``, one of ``PROGRAMS``, or ``args.at``, where it listens."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("program", nargs="?", metavar="PROGRAM", choices=PROGRAMS, help=", ".join(PROGRAMS))
    which.add_argument(
        "--at", type=bind, metavar="BIND", help="host:port or unix:/path of any daemon's health server on this machine"
    )


def bind_of(config: CloudConfig, program: str) -> str:
    """Where the daemon is asked."""
    bind: str = getattr(config, program.replace("-", "_")).health_bind
    return reachable(bind)


def reachable(where: str) -> str:
    """Where a server that listens at ``where`` is reached from the same machine: not at 0.0.0.0."""
    for anywhere, here in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:"), (":", "127.0.0.1:")):
        if where.startswith(anywhere):
            return here + where.removeprefix(anywhere)
    return where


def status(bind: str) -> dict[str, Any]:
    """What the daemon at ``bind`` tells of itself. Raises ``DaemonGoneError``."""
    _, body = _fetch(bind, "/status")
    found: dict[str, Any] = json.loads(body)
    return found


def order(bind: str, path: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Have the daemon do something; returns its answer. Blocks until it is done.

    Raises:
        DaemonGoneError: Nobody answers.
        RefusedError: It does not do it.
    """
    code, body = _fetch(bind, path, method="POST", arguments=arguments)
    try:
        found: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise RefusedError(f"{bind}{path}: {code} {body[:200]!r}") from error
    if code >= 400:
        raise RefusedError(str(found.get("error", code)))
    return found


def _fetch(bind: str, path: str, **more: Any) -> tuple[int, bytes]:
    try:
        return health.fetch(bind, path, timeout_s=_ASK_TIMEOUT_S, **more)
    except OSError as error:
        raise DaemonGoneError(f"no daemon answers at {bind}: {error.strerror or error}") from error
