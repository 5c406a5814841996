"""``dmpctl access reconcile --dry-run``: what the broker lacks and what it has too much, as the daemon sees it."""

import argparse
from typing import Any

from dmpd.cli import daemons, tables
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import exit_codes


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, lab=True)
    parser.add_argument("--dry-run", action="store_true", help="read the broker and compare; change nothing by itself")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """The daemon here reads the broker anew, and says what it will change; without ``--dry-run`` it does so at once."""
    bind = daemons.bind_of(load_cloud_config(args), "access")
    answer: dict[str, Any] = daemons.order(bind, "/reconcile", {"dry_run": args.dry_run})
    if args.json:
        tables.print_json(answer)
    else:
        for change in answer["changes"]:
            print(change)
        print(f"{answer['count']} changes" if answer["count"] else "the broker holds what it should")
    return exit_codes.DIFFERENT if answer["count"] else exit_codes.OK
