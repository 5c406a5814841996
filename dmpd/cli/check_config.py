"""Read a configuration file as the daemons would, and say every problem with its line.

Exit codes: 0 it can be used, 78 it cannot.
"""

import argparse
from pathlib import Path
from typing import Final

from dmpd.cli.config import CloudConfig, add_config_argument
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.config import load

HELP: Final = "check a configuration file"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument(
        "--program",
        choices=("cloud", "local-registry"),
        help="whose file it is (default: by its name, local-registry.yaml or any other)",
    )


def run(args: argparse.Namespace) -> int:
    path: Path = args.config
    edge = args.program == "local-registry" or (args.program is None and path.stem == "local-registry")
    load(path, LocalRegistrySettings if edge else CloudConfig)
    print(f"{path}: good")
    return exit_codes.OK
