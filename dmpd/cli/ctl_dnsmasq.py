"""``dmpctl local setup-dnsmasq``: have dnsmasq tell the Local Registry of leases at once, and take it back."""

import argparse
import difflib
import sys
from pathlib import Path
from typing import Final

from dmpd.cli import this_rae
from dmpd.local_registry import dnsmasq_setup, provisioning
from dmpd.local_registry.dnsmasq_setup import Dnsmasq, DnsmasqError
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime import exit_codes
from dmpd.runtime.config import load

OVERLAY: Final = "20-dnsmasq"
LEASE_SOCKET: Final = "lease.sock"
LEASE_FILE: Final = "/var/lib/misc/dnsmasq.leases"
"""Debian's, where none is set."""
_ABOUT: Final = "Written by dmpctl local setup-dnsmasq; --undo takes it away."


def configure(parser: argparse.ArgumentParser) -> None:
    this_rae.add_arguments(parser)
    parser.add_argument("--undo", action="store_true", help="take away what this command wrote")
    parser.add_argument("--dry-run", action="store_true", help="check and show the change, write nothing")
    parser.add_argument(
        "--dnsmasq-conf", type=Path, default=Path("/etc/dnsmasq.conf"), metavar="FILE", help="default %(default)s"
    )
    parser.add_argument(
        "--dnsmasq-dir", type=Path, default=Path("/etc/dnsmasq.d"), metavar="DIR", help="default %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    dnsmasq = Dnsmasq(args.dnsmasq_conf, args.dnsmasq_dir)
    try:
        return _undo(args, dnsmasq) if args.undo else _set_up(args, dnsmasq)
    except DnsmasqError as error:
        print(f"dmpctl local setup-dnsmasq: {error}", file=sys.stderr)
        return exit_codes.CONFIG


def _set_up(args: argparse.Namespace, dnsmasq: Dnsmasq) -> int:
    settings = load(args.config, LocalRegistrySettings)
    if not dnsmasq.folder.is_dir():
        raise DnsmasqError(f"{dnsmasq.folder} is not there: is dnsmasq installed? --dnsmasq-dir names another folder")
    wanted = dnsmasq_setup.content(dnsmasq_setup.HOOK)
    dnsmasq_setup.check(dnsmasq, wanted)
    _show(dnsmasq.drop_in, wanted)
    if args.dry_run:
        return exit_codes.OK
    dnsmasq_setup.write(dnsmasq, wanted)
    lan = {
        "lease_file": settings.lan.lease_file or LEASE_FILE,
        "lease_socket": str(Path(settings.state_dir) / LEASE_SOCKET),
    }
    provisioning.change_overlay(args.config, OVERLAY, {"lan": lan}, about=_ABOUT)
    print(f"written; leases are read from {lan['lease_file']}. Now restart both, in this order:")
    print("  supervisorctl restart local-registry; service dnsmasq restart")
    return exit_codes.OK


def _undo(args: argparse.Namespace, dnsmasq: Dnsmasq) -> int:
    overlay = provisioning.overlay_path(args.config, OVERLAY)
    existed = [path for path in (dnsmasq.drop_in, overlay) if path.exists()]
    if not existed:
        print("there is nothing to undo")
        return exit_codes.DIFFERENT
    _show(dnsmasq.drop_in, None)
    if args.dry_run:
        return exit_codes.OK
    dnsmasq_setup.write(dnsmasq, None)
    provisioning.remove_overlay(args.config, OVERLAY)
    print("taken away; now: service dnsmasq restart; supervisorctl restart local-registry")
    return exit_codes.OK


def _show(path: Path, wanted: str | None) -> None:
    before = path.read_text(errors="replace").splitlines() if path.exists() else []
    after = [] if wanted is None else wanted.splitlines()
    change = list(difflib.unified_diff(before, after, str(path), str(path), lineterm=""))
    print("\n".join(change) if change else f"{path}: as it should be")
