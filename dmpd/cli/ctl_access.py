"""``dmpctl access``: who may see and command what, and the certificates that say who is who.

``ca`` is the small CA that dmpd brings: ``dmpctl access ca --help``. A PKI of one's own does as well, if it keeps the
rules of docs/operations.md.

Exit codes: 0 done, 1 no such certificate, or one that ends soon, 3 revoked, but the broker does not know it yet, 64
wrong usage (a name that no certificate may have, too), 69 the library that the CA needs is not installed here, 78
something cannot be used: the configuration, the CA, a file.
"""

import argparse
from typing import Final

from dmpd.cli import commands

HELP: Final = "certificates of RAEs, users and services"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    commands.add(actions, "ca", "dmpd.cli.ctl_ca")  # runs itself: its library is not installed everywhere


def run(args: argparse.Namespace) -> int:
    raise AssertionError(args.action)
