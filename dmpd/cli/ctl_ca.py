"""``dmpctl access ca``: the small CA that dmpd brings, a folder on this machine (``ca.folder``, or --folder).

``init`` makes it. ``sign FILE`` signs the request of a RAE (``dmpctl enroll`` made it), or with --kind of a user or a
service who keeps the key to themselves. ``issue`` makes key and certificate: ``issue u-team1``, ``issue svc-bridge``,
``issue canary --count 3000``, ``issue server --host mqtt.example.net`` for the broker. ``revoke NAME`` puts a name's
certificates on the list, has the broker read it (``ca.crl_file``, ``ca.reload_command``) and ``dmpd access`` end the
connection; what it could not do it says, and to say it again does it again. ``certificates`` shows what ends when, and
exits 1 when something ends soon.

One certificate is one connection: two programs of a person are two names (u-team1, u-team1.watch).

Exit codes: those of ``dmpctl access``.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dmpd.cli import ca_issuing, ca_listing, ca_revocation
from dmpd.cli.arguments import checked, count, printable, seconds, span
from dmpd.cli.ca_access import Place
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.model.certificates import LIFETIME_DAYS, LIFETIME_DAYS_MAX, CertificateKind, NameRefusedError
from dmpd.runtime import exit_codes
from dmpd.runtime.authority import LIFETIME_OF_CA_DAYS, Authority
from dmpd.runtime.settings import CaSettings
from dmpd.runtime.x509 import CertificateError

HELP: Final = "the small CA: init, sign, issue, revoke, certificates"
_CLIENTS: Final = [kind.value for kind in CertificateKind if kind is not CertificateKind.SERVER]
_NAME_MAX: Final = 64


def configure(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    init = steps.add_parser("init", help="make the CA", description="Make key, certificate and empty list of a CA.")
    init.add_argument("--name", type=checked(_ca_name), default="dmpd CA", metavar="NAME", help="of the CA (dmpd CA)")
    sign = steps.add_parser("sign", help="sign a request", description="Sign the request of a RAE, or of --kind.")
    sign.add_argument("request", metavar="FILE", help="the signing request (PEM), or - for stdin")
    sign.add_argument("--kind", choices=_CLIENTS, default="rae", help="whose name it must bear (rae)")
    sign.add_argument("--out", type=Path, metavar="FILE", help="the certificate (default: beside the request, .crt)")
    issue = steps.add_parser("issue", help="make keys and certificates", description="Make keys and certificates.")
    issue.add_argument("names", nargs="+", metavar="NAME", help="u-NAME, svc-NAME, or: canary --count N, server --host")
    issue.add_argument("--count", type=count, metavar="N", help="canary-0001 to N; what is there already stays")
    issue.add_argument("--host", action="append", default=[], metavar="HOST", help="of the server; may be repeated")
    issue.add_argument("--kind", choices=_CLIENTS, help="what the names must be; needed for a RAE")
    issue.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="for NAME.key and NAME.crt (here)")
    revoke = steps.add_parser("revoke", help="refuse certificates", description="Refuse certificates from now on.")
    revoke.add_argument("name", nargs="?", metavar="NAME", help="all certificates of this name")
    revoke.add_argument("--serial", type=checked(_serial), metavar="HEX", help="only this one (see certificates)")
    revoke.add_argument("--certificate", type=Path, metavar="FILE", help="only this one, though it is in no list")
    revoke.add_argument(
        "--wait", type=seconds, default=10.0, metavar="S", help="for the end of its connection (default 10)"
    )
    listing = steps.add_parser("certificates", help="what ends when", description="Certificates and when they end.")
    listing.add_argument("--within", type=span, default="30d", metavar="TIME", help="what soon means (30d)")
    listing.add_argument("--all", action="store_true", help="also what has ended, was revoked or renewed")
    listing.add_argument("--json", action="store_true", help="for programs")
    for one in (sign, issue):
        lifetimes = ", ".join(f"{kind.value} {days}" for kind, days in LIFETIME_DAYS.items())
        one.add_argument("--days", type=checked(_days), metavar="N", help=f"how long it holds ({lifetimes})")
    init.add_argument("--days", type=checked(_days), default=LIFETIME_OF_CA_DAYS, metavar="N", help="(3650)")
    for one in (init, sign, issue, revoke, listing):
        one.add_argument("--folder", type=Path, metavar="DIR", help="the CA's (default: ca.folder); needs no --config")
        add_config_argument(one, lab=True)


def run(args: argparse.Namespace) -> int:
    steps: Mapping[str, Callable[[argparse.Namespace, Place, datetime], int]] = {
        "init": _init,
        "sign": ca_issuing.sign,
        "issue": ca_issuing.issue,
        "revoke": ca_revocation.revoke,
        "certificates": ca_listing.show,
    }
    try:
        return steps[args.step](args, _place(args), datetime.now(UTC))
    except NameRefusedError as error:
        print(f"dmpctl access ca {args.step}: {error}", file=sys.stderr)
        return exit_codes.USAGE
    except CertificateError as error:
        print(f"dmpctl access ca {args.step}: {error}", file=sys.stderr)
        return exit_codes.CONFIG


def _init(args: argparse.Namespace, place: Place, now: datetime) -> int:
    authority = Authority.create(Path(place.ca.folder), name=args.name, now=now, days=args.days)
    print(f"{authority.name} in {authority.folder}, good until {authority.ends_at:%Y-%m-%d}")
    print(f"  {authority.certificate_file} is for everybody: the broker's cafile, and ca_file of all clients")
    print(f"  {authority.list_file} is the broker's crlfile")
    print(f"  {authority.folder / 'ca.key'} is nobody's but yours: keep a copy where no network leads")
    return exit_codes.OK


def _place(args: argparse.Namespace) -> Place:
    """By the configuration; a CA that --folder names needs none, and does without. Raises ``ConfigError``."""
    if args.folder is not None:
        return Place(ca=CaSettings(folder=str(args.folder)), database=None)
    config = load_cloud_config(args)
    return Place(ca=config.ca, database=config.database)


def _ca_name(text: str) -> str:
    if not 1 <= len(printable(text)) <= _NAME_MAX:
        raise ValueError(f"expected a name of 1 to {_NAME_MAX} characters, got {text[:80]!r}")
    return text


def _serial(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError as error:
        raise ValueError(f"expected a serial number in hexadecimal, got {text[:80]!r}") from error


def _days(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= LIFETIME_DAYS_MAX:
        raise ValueError(f"expected days, 1 to {LIFETIME_DAYS_MAX}, got {text[:40]!r}")
    return number
