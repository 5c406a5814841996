"""The lab's own certificate authority: ECDSA P-256, CN = principal, files beside each other in one folder.

For the lab and the tests only: its key lies in the open beside what it signed, and nothing is ever revoked.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from dmpd.lab.server import ServerError
from dmpd.runtime.settings import MqttSettings

_VALID_DAYS: Final = 30


class CertificateFiles(Struct, frozen=True):
    """One certificate with its private key, PEM, and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path

    def mqtt_settings(self, *, port: int) -> MqttSettings:
        """How a client with this certificate reaches the lab's broker."""
        return MqttSettings(port=port, ca_file=str(self.ca), cert_file=str(self.cert), key_file=str(self.key))


class CertificateAuthority:
    """An authority that lives in ``folder`` (``ca.crt``, ``ca.key``); made there if it is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        key_file = folder / "ca.key"
        if self.ca_file.exists():
            self._key = _load_key(key_file)
            self._certificate = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _name("dmpd lab CA")
        builder = _builder(name, name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        _write_key(key_file, self._key)
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, addresses: Sequence[str] = ("127.0.0.1",)) -> CertificateFiles:
        """Certificate of a server on this machine (``localhost`` and ``addresses``); an existing one is kept."""
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        return self._issue("localhost", names, ExtendedKeyUsageOID.SERVER_AUTH, stem="server")

    def client(self, principal: str) -> CertificateFiles:
        """Certificate of a RAE, a user or a service; an existing one is kept."""
        return self._issue(principal, [], ExtendedKeyUsageOID.CLIENT_AUTH, stem=principal)

    def _issue(
        self, common_name: str, names: list[x509.GeneralName], usage: x509.ObjectIdentifier, *, stem: str
    ) -> CertificateFiles:
        files = CertificateFiles(cert=self.folder / f"{stem}.crt", key=self.folder / f"{stem}.key", ca=self.ca_file)
        if files.cert.exists():
            return files
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name), self._certificate.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write_key(files.key, key)
        files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return files


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_VALID_DAYS))
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ServerError(f"{path} is no ECDSA key")
    return key
