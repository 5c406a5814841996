"""How commands on a router speak with its Local Registry: over the unix socket in its state folder, uplink or not."""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dmpd.cli import daemons
from dmpd.cli.local_registry import DEFAULT_CONFIG
from dmpd.local_registry.daemon import CONTROL_SOCKET
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime.config import load

START_HINT: Final = "supervisorctl start local-registry"
_LOOK_EVERY_S: Final = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"default {DEFAULT_CONFIG}")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="default: control.sock in the file's state_dir")


def bind(args: argparse.Namespace) -> str:
    """Where the daemon listens.

    Raises:
        ConfigError: The configuration cannot be used, and no --socket says where.
    """
    if args.socket is not None:
        return f"unix:{args.socket}"
    return f"unix:{Path(load(args.config, LocalRegistrySettings).state_dir) / CONTROL_SOCKET}"


def status(at: str) -> dict[str, Any]:
    """What the daemon tells of itself. Raises ``DaemonGoneError`` with a hint."""
    try:
        return daemons.status(at)
    except daemons.DaemonGoneError as error:
        raise daemons.DaemonGoneError(
            f"{error} (is it running? {START_HINT}; only root and the group dmpd may ask)"
        ) from error


def state_line(found: Mapping[str, Any]) -> str:
    """``degraded: why``, or what is good."""
    reason = f": {found['reason']}" if found.get("reason") else ""
    return f"{found.get('state', '?')}{reason}"


def reload(at: str) -> str | None:
    """Have the daemon begin anew with what is on the disk now; returns its ``started_at`` of before, None = none runs.

    Raises:
        RefusedError: The configuration is bad.
    """
    try:
        before = str(daemons.status(at).get("started_at"))
        daemons.order(at, "/reload")
    except daemons.DaemonGoneError:
        return None
    return before


def wait_begun(
    at: str, *, started_at: str, timeout_s: float, is_done: Callable[[dict[str, Any]], bool] = lambda _: True
) -> dict[str, Any] | None:
    """The status of the daemon that began after ``started_at``, when ``is_done`` with it; None = not in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            found = daemons.status(at)
        except daemons.DaemonGoneError:  # between its two lives
            found = {}
        if found.get("started_at", started_at) != started_at and is_done(found):
            return found
        time.sleep(_LOOK_EVERY_S)
    return None


def wait_ready(at: str, *, started_at: str, timeout_s: float, say: Callable[[str], None]) -> bool:
    """Until the daemon that began after ``started_at`` is ready; says each state on the way. False = not in time."""
    said = ""

    def is_ready(found: dict[str, Any]) -> bool:
        nonlocal said
        line = state_line(found)
        if line != said:
            said = line
            say(line)
        return found.get("state") == "ready"

    return wait_begun(at, started_at=started_at, timeout_s=timeout_s, is_done=is_ready) is not None
