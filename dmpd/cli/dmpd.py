"""The ``dmpd`` program: the daemons, their migrations, and the lab."""

from collections.abc import Sequence
from typing import Final

from dmpd.cli import commands

COMMANDS: Final = {
    "local-registry": "dmpd.cli.local_registry",
    "bridge": "dmpd.cli.bridge",
    "cloud-registry": "dmpd.cli.cloud_registry",
    "access": "dmpd.cli.access",
    "canary": "dmpd.cli.canary",
    "stream-run": "dmpd.cli.stream_run",
    "migrate": "dmpd.cli.migrate",
    "check-config": "dmpd.cli.check_config",
    "print-config": "dmpd.cli.print_config",
    "lab": "dmpd.cli.lab",
}


def main(argv: Sequence[str] | None = None) -> int:
    return commands.run("dmpd", "Device management for test labs: the daemons, and a lab to try them.", COMMANDS, argv)
