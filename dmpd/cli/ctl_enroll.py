"""``dmpctl enroll``: give this router its name, its key and its certificate; run it as root on the router.

First ``dmpctl enroll SERIAL --broker HOST --lan INTERFACE``: makes a key that never leaves the router and a signing
request with the serial as CN, and writes the settings into local-registry.d/10-enroll.yaml. Have the request signed.
Then ``dmpctl enroll --certificate FILE --ca FILE``: checks both, puts them in place, has the daemon begin anew with
them, and shows it getting ready. A renewal is the same with ``--renew``: the old key and certificate serve until then.

Exit codes: 0 done, and the daemon ready if one was waited for, 1 it is not ready within --wait (it says why), 64 wrong
usage, 69 no daemon answers, 78 something does not fit: a setting, the certificate, the CA; nothing was changed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from dmpd.cli import daemons, this_rae
from dmpd.cli.arguments import seconds
from dmpd.local_registry import credentials, provisioning
from dmpd.local_registry.credentials import CredentialsError
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.local_registry.store import DATABASE_NAME
from dmpd.model.principals import is_rae
from dmpd.runtime import exit_codes
from dmpd.runtime.config import load

HELP: Final = "give this router its name, key and certificate"
OVERLAY: Final = "10-enroll"
_ABOUT: Final = "Written by dmpctl enroll; another run changes it."
_CERTIFICATE_BYTES_MAX: Final = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("serial", nargs="?", metavar="SERIAL", help="of this router: the CN of its certificate")
    parser.add_argument("--broker", metavar="HOST[:PORT]", help="the MQTT broker, as its certificate names it")
    parser.add_argument("--lan", metavar="INTERFACE", help="the bridge that the devices hang on")
    parser.add_argument("--leases", metavar="FILE", help="dnsmasq's lease file")
    parser.add_argument("--renew", action="store_true", help="a new key and request, beside those that serve now")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="the signed certificate (PEM), or - for stdin")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="the CA of broker and certificate (PEM)")
    parser.add_argument(
        "--wait", type=seconds, default=60.0, metavar="S", help="for the daemon to be ready (default 60)"
    )
    this_rae.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.serial is None and args.certificate is None:
        print("dmpctl enroll: give a SERIAL, or --certificate and --ca", file=sys.stderr)
        return exit_codes.USAGE
    if args.serial is not None and not is_rae(args.serial):
        print(
            f"dmpctl enroll: {args.serial!r} is no serial of a RAE: letters, digits, . _ -, 64 at most", file=sys.stderr
        )
        return exit_codes.USAGE
    try:
        _check_serial(args)
        changed = _configure(args)
        return _install(args) if args.certificate is not None else _request(args, changed=changed)
    except CredentialsError as error:
        print(f"dmpctl enroll: {error}", file=sys.stderr)
        return exit_codes.CONFIG


def _check_serial(args: argparse.Namespace) -> None:
    """A store speaks for one RAE: what waits in it bears its name. Raises ``CredentialsError``, ``ConfigError``."""
    settings = load(args.config, LocalRegistrySettings)
    store = Path(settings.state_dir) / DATABASE_NAME
    if args.serial is not None and settings.rae not in ("", args.serial) and store.exists():
        raise CredentialsError(
            f"this router is {settings.rae}, and {store} is its store; to make {args.serial} of it, stop the daemon and"
            f" move {settings.state_dir}/* away first"
        )


def _configure(args: argparse.Namespace) -> bool:
    """Write what the command line says; returns whether it is new. Raises ``ConfigError``."""
    changes: dict[str, Any] = {} if args.serial is None else {"rae": args.serial}
    if args.broker is not None:
        host, colon, port = args.broker.rpartition(":")
        changes["mqtt"] = {"host": host, "port": _number(port)} if colon else {"host": args.broker}
    lan = {"interface": args.lan, "lease_file": args.leases}
    if known := {name: value for name, value in lan.items() if value is not None}:
        changes["lan"] = known
    return bool(changes) and provisioning.change_overlay(args.config, OVERLAY, changes, about=_ABOUT)


def _number(text: str) -> int | str:
    """A port; what is none stays text, for the schema to say what was expected."""
    return int(text) if text.isascii() and text.isdigit() else text


def _request(args: argparse.Namespace, *, changed: bool) -> int:
    settings = load(args.config, LocalRegistrySettings)
    request = credentials.make_request(settings.rae, settings.mqtt, renew=args.renew)
    if changed:
        _begin_anew(this_rae.bind(args), timeout_s=args.wait)
    print(f"{request}: have this signed with the CN {settings.rae}, then:")
    print("  dmpctl enroll --certificate FILE --ca FILE")
    return exit_codes.OK


def _install(args: argparse.Namespace) -> int:
    settings = load(args.config, LocalRegistrySettings)
    if not settings.rae:
        raise CredentialsError("this router has no serial yet: dmpctl enroll SERIAL comes first")
    certificate = _read(args.certificate)
    ca = None if args.ca is None else _read(args.ca)
    credentials.install(settings.rae, settings.mqtt, certificate=certificate, ca=ca)
    print(f"{settings.mqtt.cert_file}: installed, with its key and CA")
    at = this_rae.bind(args)
    before = _reload(at)
    if before is None:
        print(f"no daemon answers at {at}; start it: {this_rae.START_HINT}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    ready = this_rae.wait_ready(at, started_at=before, timeout_s=args.wait, say=lambda line: print(line, flush=True))
    if not ready:
        print(
            f"dmpctl enroll: not ready within {args.wait:g} s; dmpctl local status says how it goes on", file=sys.stderr
        )
    return exit_codes.OK if ready else exit_codes.DIFFERENT


def _begin_anew(at: str, *, timeout_s: float) -> None:
    """Have a daemon that runs take its new name, and wait for that: whoever asks it next shall hear the new one."""
    before = _reload(at)
    if before is not None and this_rae.wait_begun(at, started_at=before, timeout_s=timeout_s) is None:
        print(f"dmpctl enroll: the daemon has not begun anew within {timeout_s:g} s; see its log", file=sys.stderr)


def _reload(at: str) -> str | None:
    try:
        return this_rae.reload(at)
    except daemons.RefusedError as error:
        raise CredentialsError(f"the daemon does not begin anew: {error}") from error


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_CERTIFICATE_BYTES_MAX)
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
