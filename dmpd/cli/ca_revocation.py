"""``dmpctl access ca revoke``: certificates onto the list, the list to the broker, the broker told."""

import argparse
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from dmpd.cli.ca_access import NotDoneError, Place, end_connection
from dmpd.model.certificates import CertificateKind, NameRefusedError
from dmpd.runtime import exit_codes
from dmpd.runtime.authority import Authority, Issued
from dmpd.runtime.files import write_whole
from dmpd.runtime.settings import CaSettings
from dmpd.runtime.x509 import CertificateError


class NotToldError(Exception):
    """The list is written, and the broker does not know it; the text says why and what to do."""


def revoke(args: argparse.Namespace, place: Place, now: datetime) -> int:
    """Raises ``CertificateError``, ``NameRefusedError``."""
    if sum(one is not None for one in (args.name, args.serial, args.certificate)) != 1:
        raise NameRefusedError("say which: a NAME, --serial or --certificate")
    authority = Authority.open(Path(place.ca.folder))
    chosen = _chosen(authority, args, now)
    if not chosen:
        print(f"{args.name or f'{args.serial:x}'}: no certificate of it was ever signed here", file=sys.stderr)
        return exit_codes.DIFFERENT
    content = authority.revoke(list(chosen), now=now)
    for serial, issued in chosen.items():
        print(f"revoked: {issued.name} serial {serial:x}")
    try:
        tell_broker(place.ca, content)
    except NotToldError as error:
        print(f"dmpctl access ca revoke: {error}", file=sys.stderr)
        return exit_codes.FAILED
    print(f"the broker has been told: {place.ca.crl_file}")
    names = {one.name for one in chosen.values() if one.kind is not CertificateKind.SERVER}
    return _end_connections(place, names, wait_s=args.wait)


def _end_connections(place: Place, names: set[str], *, wait_s: float) -> int:
    """Behind the list: whoever comes back then has another certificate."""
    for name in sorted(names):
        try:
            end_connection(place.database, name, wait_s=wait_s)
        except NotDoneError as error:
            print(f"dmpctl access ca revoke: {name} stays connected if it is: {error}", file=sys.stderr)
            return exit_codes.FAILED
        print(f"{name} is not connected with it any more")
    return exit_codes.OK


def tell_broker(settings: CaSettings, content: bytes) -> None:
    """Put the list where the broker reads it, and have it read it. Blocks for the command.

    Raises:
        NotToldError: Nothing says how, or it failed.
    """
    if settings.crl_file is None:
        raise NotToldError(
            f"the broker does not know it yet: give it {Path(settings.folder) / 'crl.pem'} as crlfile, and a HUP"
            " (ca.crl_file and ca.reload_command do both)"
        )
    try:
        write_whole(Path(settings.crl_file), content, mode=0o644)
    except OSError as error:
        raise NotToldError(f"{settings.crl_file}: {error.strerror}; the broker still has the former list") from error
    if not settings.reload_command:
        raise NotToldError(f"the broker has not read {settings.crl_file} yet: send it a HUP (ca.reload_command does)")
    _run(settings)


def _run(settings: CaSettings) -> None:
    command = settings.reload_command
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=settings.reload_timeout_s, check=False
        )
    except OSError as error:
        raise NotToldError(f"ca.reload_command: {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NotToldError(f"ca.reload_command: not done within {settings.reload_timeout_s:g} s") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
        raise NotToldError(f"ca.reload_command: exit code {done.returncode}: {words}")


def _chosen(authority: Authority, args: argparse.Namespace, now: datetime) -> dict[int, Issued]:
    """What is meant, by serial number; of a name those that have not ended. Raises ``CertificateError``."""
    if args.certificate is not None:
        try:
            content = args.certificate.read_bytes()
        except OSError as error:
            raise CertificateError(f"{args.certificate}: {error.strerror}") from error
        found = authority.read_own(content, str(args.certificate))
        return {found.serial: found}
    if args.serial is not None:
        return {one.serial: one for one in authority.issued() if one.serial == args.serial}
    all_of_it = authority.issued(args.name)
    return {one.serial: one for one in all_of_it if one.not_after > now} or {one.serial: one for one in all_of_it}
