"""The lab's certificates: dmpd's own CA (``runtime.authority``) in a folder, and what it signed as files beside it.

For the lab and the tests only: the CA's key lies in the open beside what it signed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from dmpd.model.certificates import kind_of_name
from dmpd.runtime.authority import Authority, Signed
from dmpd.runtime.settings import MqttSettings


class CertificateFiles(Struct, frozen=True):
    """One certificate with its private key, PEM, and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path

    def mqtt_settings(self, *, port: int) -> MqttSettings:
        """How a client with this certificate reaches the lab's broker."""
        return MqttSettings(port=port, ca_file=str(self.ca), cert_file=str(self.cert), key_file=str(self.key))


class CertificateAuthority:
    """A CA that lives in ``folder``; made there if it is not there yet. What was issued once is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        self.list_file = folder / "crl.pem"
        """What was revoked."""
        if self.ca_file.exists():
            self.authority = Authority.open(folder, durable=False)
        else:
            self.authority = Authority.create(folder, name="dmpd lab CA", now=_now(), durable=False)

    def server(self, addresses: Sequence[str] = ("127.0.0.1",)) -> CertificateFiles:
        """Certificate of a server on this machine (``localhost`` and ``addresses``); an existing one is kept."""
        files = self._files("server")
        if not files.cert.exists():
            self._write(files, self.authority.issue_server(["localhost", *addresses], now=_now()))
        return files

    def client(self, principal: str) -> CertificateFiles:
        """Certificate of a RAE, a user or a service; an existing one is kept. Raises ``NameRefusedError``."""
        files = self._files(principal)
        if not files.cert.exists():
            self._write(files, self.authority.issue(principal, kind_of_name(principal), now=_now()))
        return files

    def revoke(self, principal: str) -> None:
        """Put every certificate of ``principal`` on the list; no broker is told."""
        self.authority.revoke([one.serial for one in self.authority.issued(principal)], now=_now())

    def _files(self, stem: str) -> CertificateFiles:
        return CertificateFiles(cert=self.folder / f"{stem}.crt", key=self.folder / f"{stem}.key", ca=self.ca_file)

    @staticmethod
    def _write(files: CertificateFiles, signed: Signed) -> None:
        files.key.touch(mode=0o600)
        files.key.write_bytes(signed.key)
        files.cert.write_bytes(signed.certificate)


def _now() -> datetime:
    return datetime.now(UTC)
