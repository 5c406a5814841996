"""``dmpctl access ca sign`` and ``issue``: certificates for requests, and certificates with fresh keys, as files."""

import argparse
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from dmpd.cli.ca_access import NotDoneError, Place, make_known
from dmpd.model.certificates import CertificateKind, NameRefusedError, check_name, kind_of_name
from dmpd.runtime import exit_codes, x509
from dmpd.runtime.authority import Authority, Signed
from dmpd.runtime.files import write_whole
from dmpd.runtime.x509 import CertificateError

_REQUEST_BYTES_MAX: Final = 1 << 16
_CANARY: Final = "canary"
_SERVER: Final = "server"
_MANY: Final = 20
"""So many certificates are told one by one."""


def sign(args: argparse.Namespace, place: Place, now: datetime) -> int:
    """Raises ``CertificateError``, ``NameRefusedError``."""
    authority = Authority.open(Path(place.ca.folder))
    request = x509.read_request(_read(args.request), args.request)
    signed = authority.sign(request, CertificateKind(args.kind), now=now, days=args.days)
    _know([signed.issued.name], place)
    out: Path | None = args.out
    if out is None and args.request == "-":
        print(signed.certificate.decode(), end="")
        return exit_codes.OK
    out = out or Path(args.request).with_suffix(".crt")
    _write(out, signed.certificate, mode=0o644)
    print(_said(signed, out))
    return exit_codes.OK


def issue(args: argparse.Namespace, place: Place, now: datetime) -> int:
    """Raises ``CertificateError``, ``NameRefusedError``; of several names nothing is done if one is refused."""
    authority = Authority.open(Path(place.ca.folder), durable=args.count is None)
    if args.names == [_SERVER] and args.kind is None:
        return _issue_server(authority, args, now)
    if args.host:
        raise NameRefusedError("--host goes with: issue server --host NAME")
    names = _names(args)
    kinds = {name: _kind(name, args.kind) for name in names}
    there = {name for name in names if (args.out / f"{name}.crt").exists() or (args.out / f"{name}.key").exists()}
    if there and args.count is None:
        raise CertificateError(f"{args.out} holds files of {', '.join(sorted(there))} already: name another with --out")
    made = [name for name in names if name not in there]
    for name in made:
        _deliver(authority.issue(name, kinds[name], now=now, days=args.days), args.out, name, tell=len(made) <= _MANY)
    authority.flush()
    _know(made, place)
    if len(made) > _MANY or args.count is not None:
        print(f"{len(made)} certificates made in {args.out}, {len(there)} were there already")
    return exit_codes.OK


def _issue_server(authority: Authority, args: argparse.Namespace, now: datetime) -> int:
    if not args.host or args.count is not None:
        raise NameRefusedError("expected: issue server --host NAME, as often as it has names and addresses")
    if (args.out / f"{_SERVER}.key").exists():
        raise CertificateError(f"{args.out} holds a server.key already: name another folder with --out")
    _deliver(authority.issue_server(args.host, now=now, days=args.days), args.out, _SERVER, tell=True)
    return exit_codes.OK


def _know(names: Iterable[str], place: Place) -> None:
    """Have the broker know the users among ``names``; that it cannot be done is said, and no failure."""
    for user in (name for name in names if kind_of_name(name) is CertificateKind.USER):
        try:
            make_known(place.database, user)
        except NotDoneError as error:
            print(f"{user} is unknown to the broker until his first grant: {error}", file=sys.stderr)


def _names(args: argparse.Namespace) -> list[str]:
    if args.count is None and _CANARY not in args.names:
        return list(dict.fromkeys(args.names))
    if args.names != [_CANARY] or args.count is None:
        raise NameRefusedError("expected: issue canary --count N")
    return [f"canary-{number:04}" for number in range(1, args.count + 1)]


def _kind(name: str, expected: str | None) -> CertificateKind:
    """Raises ``NameRefusedError``: nobody's name, not what was expected, or a RAE's that nobody asked for."""
    if expected is not None:
        check_name(name, CertificateKind(expected))
        return CertificateKind(expected)
    kind = kind_of_name(name)
    if kind is CertificateKind.RAE:
        raise NameRefusedError(
            f"{name!r} is the name of a RAE, whose key should never leave it: sign its request (dmpctl enroll), or say"
            " --kind rae; a user is u-NAME"
        )
    return kind


def _deliver(signed: Signed, folder: Path, stem: str, *, tell: bool) -> None:
    """Raises ``CertificateError``."""
    _write(folder / f"{stem}.key", signed.key, mode=0o600)
    _write(folder / f"{stem}.crt", signed.certificate, mode=0o644)
    if tell:
        print(_said(signed, folder / f"{stem}.crt"))


def _said(signed: Signed, file: Path) -> str:
    one = signed.issued
    return f"{file}: {one.kind.value} {one.name}, serial {one.serial:x}, good until {one.not_after:%Y-%m-%d}"


def _read(request: str) -> bytes:
    try:
        if request == "-":
            return sys.stdin.buffer.read(_REQUEST_BYTES_MAX)
        with Path(request).open("rb") as file:
            return file.read(_REQUEST_BYTES_MAX)
    except OSError as error:
        raise CertificateError(f"{request}: {error.strerror}") from error


def _write(path: Path, content: bytes, *, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, content, mode=mode, durable=False)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from error
