"""The ``dmpctl`` program: what an operator asks."""

from collections.abc import Sequence
from typing import Final

from dmpd.cli import commands

COMMANDS: Final = {
    "devices": "dmpd.cli.ctl_devices",
    "device": "dmpd.cli.ctl_device",
    "rae": "dmpd.cli.ctl_rae",
    "raes": "dmpd.cli.ctl_raes",
    "history": "dmpd.cli.ctl_history",
    "explain": "dmpd.cli.ctl_explain",
    "watch": "dmpd.cli.ctl_watch",
    "status": "dmpd.cli.ctl_status",
    "request": "dmpd.cli.ctl_request",
    "resync": "dmpd.cli.ctl_resync",
    "verify": "dmpd.cli.ctl_verify",
    "canary": "dmpd.cli.ctl_canary",
    "stream": "dmpd.cli.ctl_stream",
    "dead-letters": "dmpd.cli.ctl_dead_letters",
    "health": "dmpd.cli.ctl_health",
    "drain": "dmpd.cli.ctl_drain",
    "reload": "dmpd.cli.ctl_reload",
    "access": "dmpd.cli.ctl_access",
    "enroll": "dmpd.cli.ctl_enroll",
    "local": "dmpd.cli.ctl_local",
    "check-config": "dmpd.cli.check_config",
    "print-config": "dmpd.cli.print_config",
}


def main(argv: Sequence[str] | None = None) -> int:
    return commands.run("dmpctl", "Ask dmpd: devices, RAEs, the state of its parts; steer its stream.", COMMANDS, argv)
