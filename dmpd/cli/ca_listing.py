"""``dmpctl access ca certificates``: what was signed, what ends when, and whether something ends soon."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import Struct

from dmpd.cli import tables
from dmpd.cli.ca_access import Place
from dmpd.runtime import exit_codes, x509
from dmpd.runtime.authority import Authority, Issued
from dmpd.runtime.x509 import CertificateError

_COLUMNS: Final = ("name", "kind", "serial", "ends", "left", "state")
GOOD: Final = "good"
SOON: Final = "ends soon"
ENDED: Final = "ended"
REVOKED: Final = "revoked"
RENEWED: Final = "renewed"
"""Another certificate of the same name ends later."""


class Line(Struct, frozen=True, kw_only=True):
    """One certificate, or the CA, or a list, and how it stands."""

    name: str
    kind: str
    serial: str
    ends_at: datetime
    left_s: float
    state: str


def show(args: argparse.Namespace, place: Place, now: datetime) -> int:
    """Exit code 1 when something that is in use ends within ``--within``. Raises ``CertificateError``."""
    authority = Authority.open(Path(place.ca.folder))
    found = [
        _line("the CA", "ca", "", authority.ends_at, now, args.within),
        _line("the list", "crl", "", authority.list_ends_at, now, args.within),
        *lines(authority.issued(), now, args.within),
    ]
    problem = None if place.ca.crl_file is None else differs(authority, Path(place.ca.crl_file))
    shown = [one for one in found if args.all or one.state in (GOOD, SOON)]
    if args.json:
        tables.print_json(shown)
    else:
        _print(shown, hidden=len(found) - len(shown))
    if problem is not None:
        print(f"dmpctl access ca certificates: {problem}", file=sys.stderr)
    soon = any(one.state == SOON or (one.kind in ("ca", "crl") and one.state == ENDED) for one in found)
    return exit_codes.DIFFERENT if soon or problem is not None else exit_codes.OK


def lines(issued: Iterable[Issued], now: datetime, within: timedelta) -> list[Line]:
    """Each certificate's line; of one name only the one that ends last can end soon."""
    found: list[Line] = []
    last: dict[tuple[str, str], datetime] = {}
    certificates = list(issued)
    for one in certificates:
        if one.revoked_at is None:
            key = (one.kind.value, one.name)
            last[key] = max(one.not_after, last.get(key, one.not_after))
    for one in certificates:
        line = _line(one.name, one.kind.value, f"{one.serial:x}", one.not_after, now, within)
        if one.revoked_at is not None:
            line = _with_state(line, REVOKED)
        elif line.state != ENDED and last[one.kind.value, one.name] > one.not_after:
            line = _with_state(line, RENEWED)
        found.append(line)
    return found


def differs(authority: Authority, crl_file: Path) -> str | None:
    """Why the broker's list is not the CA's own and newest one, as a sentence."""
    try:
        theirs = x509.load_revocation_list(crl_file.read_bytes(), str(crl_file))
        ours = x509.load_revocation_list(authority.list_file.read_bytes(), str(authority.list_file))
    except OSError as error:
        return f"{error.filename}: {error.strerror}: the broker has no list"
    except CertificateError as error:
        return str(error)
    if theirs == ours:
        return None
    return f"{crl_file} is not the newest list: what was revoked last may still get in; revoke it again"


def _line(name: str, kind: str, serial: str, ends: datetime, now: datetime, within: timedelta) -> Line:
    state = ENDED if ends <= now else SOON if ends - now <= within else GOOD
    return Line(name=name, kind=kind, serial=serial, ends_at=ends, left_s=(ends - now).total_seconds(), state=state)


def _with_state(line: Line, state: str) -> Line:
    return Line(
        name=line.name, kind=line.kind, serial=line.serial, ends_at=line.ends_at, left_s=line.left_s, state=state
    )


def _print(shown: Sequence[Line], *, hidden: int) -> None:
    table = tables.table(_COLUMNS)
    for one in shown:
        left = "-" if one.left_s <= 0 else tables.duration(one.left_s)
        table.add_row(one.name, one.kind, one.serial or "-", tables.instant(one.ends_at), left, one.state)
    tables.console().print(table)
    if hidden:
        print(f"{hidden} more have ended, were revoked or renewed (--all)")
