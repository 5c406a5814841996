"""Certificates, signing requests and revocation lists as bytes: made and read, without disk and clock.

ECDSA P-256 throughout. Whether a name may stand in a certificate is ``model.certificates``' to say, what is kept where
``runtime.authority``'s. Besides these two files nobody imports ``cryptography``.
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

BACKDATED: Final = timedelta(hours=1)
"""A certificate or list holds from so long ago, because the clocks of those who check it are not ours."""
_RSA_BITS_MIN: Final = 2048
_COMMON_NAME_MAX: Final = 64
_PEM: Final = serialization.Encoding.PEM


class CertificateError(Exception):
    """A certificate, request, key or list cannot be used; the text says which and what was expected."""


class Request(Struct, frozen=True):
    """What a signing request asks for; its other wishes are not ours to grant."""

    name: str
    public_key: PublicKey


class Revoked(Struct, frozen=True):
    """One line of a revocation list."""

    serial: int
    at: datetime


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """PKCS #8, not encrypted: it is the file's mode that keeps it."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def pem(found: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return found.public_bytes(_PEM)


def load_key(content: bytes, where: str) -> PrivateKey:
    """Raises ``CertificateError``: not an ECDSA key, or one behind a password."""
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{where}: expected a private key (PEM, no password): {error}") from error
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"{where}: expected an ECDSA key, got {type(key).__name__}")
    return key


def load_certificate(content: bytes, where: str) -> x509.Certificate:
    """The first one in ``content``. Raises ``CertificateError``."""
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise CertificateError(f"{where}: expected a certificate (PEM): {error}") from error


def load_revocation_list(content: bytes, where: str) -> x509.CertificateRevocationList:
    """Raises ``CertificateError``."""
    try:
        return x509.load_pem_x509_crl(content)
    except ValueError as error:
        raise CertificateError(f"{where}: expected a revocation list (PEM): {error}") from error


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this CA's key has signed it, under its name."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def common_names(subject: x509.Name) -> list[str]:
    return [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def read_request(content: bytes, where: str) -> Request:
    """A signing request that its own key has signed, with one CN and nothing else as subject.

    Raises:
        CertificateError: It is none, or asks for what a broker could take for another name.
    """
    try:
        request = x509.load_pem_x509_csr(content)
        signed = request.is_signature_valid
        subject, key = request.subject, request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{where}: expected a signing request (PEM): {error}") from error
    if not signed:
        raise CertificateError(f"{where}: the request is not signed by its own key")
    names = common_names(subject)
    if len(names) != 1 or len(list(subject)) != 1:  # of two CNs one broker takes the first, another the last
        found = subject.rfc4514_string() or "nothing"
        raise CertificateError(f"{where}: expected one CN and nothing else as subject, got {found[:200]!r}")
    return Request(names[0], _good_key(key, where))


def _good_key(key: object, where: str) -> PublicKey:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size >= _RSA_BITS_MIN:
            return key
        raise CertificateError(f"{where}: expected an RSA key of {_RSA_BITS_MIN} bits or more, got {key.key_size}")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        return key
    raise CertificateError(f"{where}: expected a key of ECDSA (P-256, P-384, P-521), Ed25519 or RSA")


def make_authority(key: PrivateKey, name: str, *, now: datetime, lifetime: timedelta) -> x509.Certificate:
    """A self-signed CA that may sign certificates and lists, and no CAs below it."""
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    return (
        _builder(_name(name), _name(name), key.public_key(), now=now, ends=now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_client(
    name: str, public_key: PublicKey, *, authority: x509.Certificate, key: PrivateKey, now: datetime, ends: datetime
) -> x509.Certificate:
    """A certificate with which ``name`` may log in, and do nothing else."""
    builder = _leaf(name, public_key, ExtendedKeyUsageOID.CLIENT_AUTH, authority=authority, now=now, ends=ends)
    return builder.sign(key, hashes.SHA256())


def make_server(
    hosts: Sequence[str],
    public_key: PublicKey,
    *,
    authority: x509.Certificate,
    key: PrivateKey,
    now: datetime,
    ends: datetime,
) -> x509.Certificate:
    """A certificate of the server with these names and addresses; nobody can log in with it.

    Raises:
        CertificateError: One is no name and no address.
    """
    name = hosts[0] if len(hosts[0]) <= _COMMON_NAME_MAX else "server"  # only the alternative names count
    builder = _leaf(name, public_key, ExtendedKeyUsageOID.SERVER_AUTH, authority=authority, now=now, ends=ends)
    try:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    except ValueError as error:
        raise CertificateError(f"expected host names and addresses, got {', '.join(hosts)!r}: {error}") from error
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256())


def make_revocation_list(
    revoked: Sequence[Revoked],
    *,
    former: x509.CertificateRevocationList | None,
    authority: x509.Certificate,
    key: PrivateKey,
    now: datetime,
) -> x509.CertificateRevocationList:
    """The list that follows ``former``, valid to the CA's end: past a list's end a broker refuses everybody.

    ``lastUpdate`` grows with each list, by a second at least: OpenSSL takes the later one of two that it holds, and of
    equal ones the first. It lies in the past, so that growing does not lead into the future, where no list counts.
    """
    last_update = now - BACKDATED
    number = 1
    if former is not None:
        last_update = max(last_update, former.last_update_utc + timedelta(seconds=1))
        number = former.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(last_update)
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(authority), critical=False)
    )
    for one in revoked:
        line = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.at).build()
        builder = builder.add_revoked_certificate(line)
    return builder.sign(key, hashes.SHA256())


def _leaf(
    name: str,
    public_key: PublicKey,
    purpose: x509.ObjectIdentifier,
    *,
    authority: x509.Certificate,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        _builder(_name(name), authority.subject, public_key, now=now, ends=ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key(authority), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, *, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
    )


def _authority_key(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
