"""Read a configuration as the daemons would, overlays and ``DMPD__…`` included, and say every problem with its place.

Exit codes: 0 it can be used, 78 it cannot.
"""

import argparse
from pathlib import Path
from typing import Final

from dmpd.cli.config import CloudConfig, add_any_config_argument
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.config import load

HELP: Final = "check a configuration file"


def configure(parser: argparse.ArgumentParser) -> None:
    add_any_config_argument(parser)
    add_program_argument(parser)


def add_program_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--program",
        choices=("cloud", "local-registry"),
        help="whose file it is (default: by its name, local-registry.yaml or any other)",
    )


def schema_of(args: argparse.Namespace) -> type[CloudConfig | LocalRegistrySettings]:
    """What the file of ``--config`` and ``--program`` must fit."""
    edge = args.program == "local-registry" or (args.program is None and args.config.stem == "local-registry")
    return LocalRegistrySettings if edge else CloudConfig


def run(args: argparse.Namespace) -> int:
    path: Path = args.config
    load(path, schema_of(args))
    print(f"{path}: good")
    return exit_codes.OK
