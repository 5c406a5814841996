"""The small CA that dmpd brings, as a folder: its key, its certificate, what it has issued, and its revocation list.

    ca.key        0600   the key; who reads it is every RAE, user and service at once
    ca.crt        0644   what the broker and all clients trust
    crl.pem       0644   what was revoked; there from the first day, so that the broker can be given it
    issued/       0700   each certificate ever signed, NAME.SERIAL.crt: before it is handed out it stands here

Nothing else is kept: what is issued are the files, what is revoked is the list. Used by ``dmpctl access ca`` and by the
lab; blocks for the disk. Private keys are never logged and never kept here, but for the CA's own.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509 as foreign
from msgspec import Struct

from dmpd.model.certificates import LIFETIME_DAYS, CertificateKind, NameRefusedError, check_name, kind_of_name
from dmpd.runtime import x509
from dmpd.runtime.files import write_whole
from dmpd.runtime.flock import AlreadyRunningError, InstanceLock
from dmpd.runtime.x509 import CertificateError, PrivateKey, PublicKey, Request, Revoked

LIFETIME_OF_CA_DAYS: Final = 3650
_OTHERS: Final = 0o077
_PUBLIC: Final = 0o644
_SECRET: Final = 0o600
_SERVER: Final = "_server"
"""In place of a name that a principal could have."""


class Issued(Struct, frozen=True, kw_only=True):
    """One certificate that the CA has signed."""

    name: str
    serial: int
    kind: CertificateKind
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None


class Signed(Struct, frozen=True):
    """A fresh certificate, PEM, and its private key if that was made here."""

    certificate: bytes
    issued: Issued
    key: bytes = b""

    def __repr__(self) -> str:
        """Without the key: it must stand in no log."""
        return f"Signed({self.issued.name}, serial {self.issued.serial:x})"


class Authority:
    """A CA in ``folder``. ``create`` makes one, ``open`` finds it; several processes may sign at a time."""

    def __init__(self, folder: Path, key: PrivateKey, certificate: foreign.Certificate, *, durable: bool) -> None:
        """Use ``create`` or ``open``."""
        self.folder = folder
        self.certificate_file = folder / "ca.crt"
        self.list_file = folder / "crl.pem"
        self._key = key
        self._certificate = certificate
        self._durable = durable

    @classmethod
    def create(
        cls, folder: Path, *, name: str, now: datetime, days: int = LIFETIME_OF_CA_DAYS, durable: bool = True
    ) -> "Authority":
        """Make a key, a certificate and an empty revocation list in ``folder``, which is made with mode 0700.

        Args:
            durable: False spares the waits for the disk: for tests and labs.

        Raises:
            CertificateError: There is a CA already, or the folder cannot be written; nothing was changed.
        """
        with _disk(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "issued").mkdir(mode=0o700, exist_ok=True)
            with _alone(folder):
                if (folder / "ca.crt").exists() or (folder / "ca.key").exists():
                    raise CertificateError(f"{folder} holds a CA already: move it away first, or name another folder")
                key = x509.new_key()
                certificate = x509.make_authority(key, name, now=now, lifetime=timedelta(days=days))
                write_whole(folder / "ca.key", x509.key_pem(key), mode=_SECRET, durable=durable)
                found = cls(folder, key, certificate, durable=durable)
                found._write_list(former=None, revoked=[], now=now)
                write_whole(folder / "ca.crt", x509.pem(certificate), mode=_PUBLIC, durable=durable)
        return found

    @classmethod
    def open(cls, folder: Path, *, durable: bool = True) -> "Authority":
        """Find the CA in ``folder``.

        Raises:
            CertificateError: There is none, it cannot be used, or others may read its key.
        """
        key_file, certificate_file = folder / "ca.key", folder / "ca.crt"
        if not certificate_file.exists():
            raise CertificateError(f"{folder} holds no CA: dmpctl access ca init makes one, --folder names another")
        with _disk(folder):
            mode = key_file.stat().st_mode & 0o777
            if mode & _OTHERS:
                raise CertificateError(
                    f"{key_file} may be read by others (mode {mode:04o}); who has read it can sign for everybody."
                    f" If nobody has: chmod 600 {key_file}"
                )
            key = x509.load_key(key_file.read_bytes(), str(key_file))
            certificate = x509.load_certificate(certificate_file.read_bytes(), str(certificate_file))
        if certificate.public_key() != key.public_key():
            raise CertificateError(f"{key_file} is not the key of {certificate_file}")
        return cls(folder, key, certificate, durable=durable)

    @property
    def name(self) -> str:
        return x509.common_names(self._certificate.subject)[0]

    @property
    def ends_at(self) -> datetime:
        return self._certificate.not_valid_after_utc

    @property
    def list_ends_at(self) -> datetime:
        """When the revocation list ends. Raises ``CertificateError``."""
        with _disk(self.folder):
            ends = self._list().next_update_utc
        if ends is None:
            raise CertificateError(f"{self.list_file} names no end: not one of this CA's making")
        return ends

    def sign(self, request: Request, kind: CertificateKind, *, now: datetime, days: int | None = None) -> Signed:
        """A certificate for the key of a request; the name must be one of ``kind``.

        Args:
            days: How long it holds, at most to the CA's end; None = as long as its kind does.

        Raises:
            NameRefusedError: The name is not one of that kind, or nobody's.
            CertificateError: The CA has ended, or the disk refuses.
        """
        check_name(request.name, kind)
        return self._client(request.name, request.public_key, kind, now=now, days=days)

    def issue(self, name: str, kind: CertificateKind, *, now: datetime, days: int | None = None) -> Signed:
        """A fresh key and its certificate. Raises what ``sign`` raises."""
        check_name(name, kind)
        key = x509.new_key()
        signed = self._client(name, key.public_key(), kind, now=now, days=days)
        return Signed(signed.certificate, signed.issued, x509.key_pem(key))

    def issue_server(self, hosts: Sequence[str], *, now: datetime, days: int | None = None) -> Signed:
        """A fresh key and a certificate for a server with these names and addresses. Raises ``CertificateError``."""
        key = x509.new_key()
        ends = self._ends(CertificateKind.SERVER, now=now, days=days)
        certificate = x509.make_server(
            hosts, key.public_key(), authority=self._certificate, key=self._key, now=now, ends=ends
        )
        return self._keep(hosts[0], CertificateKind.SERVER, certificate, x509.key_pem(key))

    def issued(self, name: str | None = None) -> list[Issued]:
        """Every certificate that was ever signed, or those with which ``name`` may log in; by name, then by end.

        Raises:
            CertificateError: The folder cannot be read.
        """
        with _disk(self.folder):
            revoked = {one.serial: one.at for one in self._revoked(self._list())}
            files = [file for file in (self.folder / "issued").glob("*.crt") if name in (None, _name_of(file))]
            found = [_issued(_name_of(file), file.read_bytes(), str(file), revoked) for file in files]
        return sorted(found, key=lambda one: (one.name, one.not_after, one.serial))

    def read_own(self, content: bytes, where: str) -> Issued:
        """A certificate that this CA has signed, though it may stand nowhere. Raises ``CertificateError``."""
        certificate = x509.load_certificate(content, where)
        if not x509.is_issued_by(certificate, self._certificate):
            raise CertificateError(f"{where} was not signed by this CA ({self.name})")
        known = (one for one in self.issued() if one.serial == certificate.serial_number)
        name = "".join(x509.common_names(certificate.subject)[:1])  # the one that the broker takes
        return next(known, None) or _issued(name, content, where, {})

    def revoke(self, serials: Iterable[int], *, now: datetime) -> bytes:
        """Put certificates on the list; returns it, PEM. What stands there already stays as it is.

        Raises:
            CertificateError: Another process changes the list at the moment, or the disk refuses; nothing was changed.
        """
        with _disk(self.folder), _alone(self.folder):
            former = self._list()
            revoked = self._revoked(former)
            known = {one.serial for one in revoked}
            revoked += [Revoked(serial, now) for serial in dict.fromkeys(serials) if serial not in known]
            return self._write_list(former=former, revoked=revoked, now=now)

    def flush(self) -> None:
        """Make all that was signed survive a power cut: at the end of many, with ``durable=False``. Blocks."""
        os.sync()

    def _client(
        self, name: str, public_key: PublicKey, kind: CertificateKind, *, now: datetime, days: int | None
    ) -> Signed:
        ends = self._ends(kind, now=now, days=days)
        certificate = x509.make_client(name, public_key, authority=self._certificate, key=self._key, now=now, ends=ends)
        return self._keep(name, kind, certificate)

    def _ends(self, kind: CertificateKind, *, now: datetime, days: int | None) -> datetime:
        if now >= self.ends_at:
            raise CertificateError(f"the CA {self.name} has ended at {self.ends_at:%Y-%m-%d}: make a new one")
        return min(now + timedelta(days=days or LIFETIME_DAYS[kind]), self.ends_at)

    def _keep(self, name: str, kind: CertificateKind, certificate: foreign.Certificate, key: bytes = b"") -> Signed:
        content = x509.pem(certificate)
        stem = _SERVER if kind is CertificateKind.SERVER else name  # a host may be called like a RAE
        file = self.folder / "issued" / f"{stem}.{certificate.serial_number:x}.crt"
        with _disk(self.folder):
            write_whole(file, content, mode=_PUBLIC, durable=self._durable)
        issued = Issued(
            name=name,
            serial=certificate.serial_number,
            kind=kind,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )
        return Signed(content, issued, key)

    def _list(self) -> foreign.CertificateRevocationList:
        return x509.load_revocation_list(self.list_file.read_bytes(), str(self.list_file))

    @staticmethod
    def _revoked(found: foreign.CertificateRevocationList) -> list[Revoked]:
        return [Revoked(one.serial_number, one.revocation_date_utc) for one in found]

    def _write_list(
        self, *, former: foreign.CertificateRevocationList | None, revoked: Sequence[Revoked], now: datetime
    ) -> bytes:
        made = x509.make_revocation_list(revoked, former=former, authority=self._certificate, key=self._key, now=now)
        write_whole(self.list_file, x509.pem(made), mode=_PUBLIC, durable=self._durable)
        return x509.pem(made)


def _name_of(file: Path) -> str:
    """NAME of ``NAME.SERIAL.crt``; a name may have dots itself."""
    return file.name.removesuffix(".crt").rpartition(".")[0]


def _issued(name: str, content: bytes, where: str, revoked: dict[int, datetime]) -> Issued:
    certificate = x509.load_certificate(content, where)
    serial = certificate.serial_number
    return Issued(
        name="".join(x509.common_names(certificate.subject)[:1]),
        serial=serial,
        kind=_kind(name),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        revoked_at=revoked.get(serial),
    )


def _kind(name: str) -> CertificateKind:
    if name == _SERVER:
        return CertificateKind.SERVER
    try:
        return kind_of_name(name)
    except NameRefusedError:  # our key was used past us: the broker takes every name for that of a RAE
        return CertificateKind.RAE


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the disk refuses, as a sentence."""
    try:
        yield
    except OSError as error:
        raise CertificateError(f"{error.filename or folder}: {error.strerror}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time changes the list. Raises ``CertificateError``."""
    try:
        lock = InstanceLock(folder / ".lock")
    except AlreadyRunningError as error:
        raise CertificateError(f"another process changes this CA, try again: {error}") from error
    try:
        yield
    finally:
        lock.release()
