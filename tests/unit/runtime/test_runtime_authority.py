"""The CA's folder: what it signs, what it refuses, who may read it, and that its list only ever grows."""

import stat
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as foreign
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dmpd.model.certificates import LIFETIME_DAYS, CertificateKind, NameRefusedError
from dmpd.runtime import x509
from dmpd.runtime.authority import Authority
from dmpd.runtime.flock import InstanceLock
from dmpd.runtime.x509 import BACKDATED, CertificateError, Request

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
NAMES = {
    CertificateKind.RAE: "rae-1",
    CertificateKind.USER: "u-team1",
    CertificateKind.SERVICE: "svc-bridge",
    CertificateKind.CANARY: "canary-0001",
}


@pytest.fixture
def authority(tmp_path):
    return Authority.create(tmp_path / "ca", name="test CA", now=NOW, durable=False)


def request(*names, key=None, digest=True):
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = foreign.Name([foreign.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = foreign.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.sign(key, hashes.SHA256() if digest else None)
    return signed.public_bytes(serialization.Encoding.PEM)


def read(content):
    return x509.read_request(content, "a.csr")


def test_only_its_owner_may_read_the_key_and_everybody_the_rest(authority):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.folder.iterdir()}
    assert modes["ca.key"] == 0o600
    assert modes["ca.crt"] == modes["crl.pem"] == 0o644
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_not_used(authority, mode):
    (authority.folder / "ca.key").chmod(mode)
    with pytest.raises(CertificateError, match=rf"may be read by others \(mode {mode:04o}\).*chmod 600"):
        Authority.open(authority.folder)


def test_a_ca_is_never_made_over_another(authority):
    before = {path.name: path.read_bytes() for path in authority.folder.glob("c*")}
    with pytest.raises(CertificateError, match="holds a CA already"):
        Authority.create(authority.folder, name="other", now=NOW)
    assert before == {path.name: path.read_bytes() for path in authority.folder.glob("c*")}


def test_what_is_no_ca_is_said(tmp_path, authority):
    with pytest.raises(CertificateError, match=r"holds no CA: dmpctl access ca init"):
        Authority.open(tmp_path / "nothing")
    other = Authority.create(tmp_path / "other", name="other", now=NOW, durable=False)
    (authority.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match="is not the key of"):
        Authority.open(authority.folder)
    (authority.folder / "ca.key").write_bytes(b"garbage")
    with pytest.raises(CertificateError, match="expected a private key"):
        Authority.open(authority.folder)


def usages(certificate):
    """What the key may be used for, as whoever checks it must heed."""
    found = certificate.extensions.get_extension_for_class(foreign.KeyUsage)
    assert found.critical
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(found.value, name)}


def test_the_ca_signs_certificates_and_lists_and_no_other_ca(authority):
    certificate = foreign.load_pem_x509_certificate(authority.certificate_file.read_bytes())
    assert usages(certificate) == {"key_cert_sign", "crl_sign"}
    constraints = certificate.extensions.get_extension_for_class(foreign.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


@pytest.mark.parametrize("kind", NAMES)
def test_a_clients_certificate_is_for_logging_in_and_for_nothing_else(authority, kind):
    signed = authority.issue(NAMES[kind], kind, now=NOW)
    certificate = foreign.load_pem_x509_certificate(signed.certificate)
    extensions = certificate.extensions
    assert [one.value for one in certificate.subject] == [NAMES[kind]]
    assert list(extensions.get_extension_for_class(foreign.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    constraints = extensions.get_extension_for_class(foreign.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert usages(certificate) == {"digital_signature"}
    assert certificate.not_valid_before_utc == NOW - BACKDATED
    assert certificate.not_valid_after_utc == NOW + timedelta(days=LIFETIME_DAYS[kind])
    assert authority.read_own(signed.certificate, "x") == signed.issued


def test_a_servers_certificate_has_its_names_and_lets_nobody_in(authority):
    signed = authority.issue_server(["mqtt.example.net", "10.0.0.1", "::1"], now=NOW)
    certificate = foreign.load_pem_x509_certificate(signed.certificate)
    extensions = certificate.extensions
    assert list(extensions.get_extension_for_class(foreign.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert usages(certificate) == {"digital_signature"}
    names = extensions.get_extension_for_class(foreign.SubjectAlternativeName).value
    assert names.get_values_for_type(foreign.DNSName) == ["mqtt.example.net"]
    assert [str(one) for one in names.get_values_for_type(foreign.IPAddress)] == ["10.0.0.1", "::1"]
    assert authority.issued("mqtt.example.net") == []  # what a RAE of that name has
    assert [one.kind for one in authority.issued()] == [CertificateKind.SERVER]


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
def test_a_request_is_signed_for_its_key(authority, key):
    digest = not isinstance(key, ed25519.Ed25519PrivateKey)
    signed = authority.sign(read(request("rae-1", key=key, digest=digest)), CertificateKind.RAE, now=NOW)
    assert foreign.load_pem_x509_certificate(signed.certificate).public_key() == key.public_key()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("rae-1", "admin"), "expected one CN and nothing else as subject, got 'CN=admin,CN=rae-1'"),
        ((), "expected one CN and nothing else as subject, got 'nothing'"),
    ],
)
def test_a_request_has_one_name(names, told):
    with pytest.raises(CertificateError, match=told):
        read(request(*names))


@pytest.mark.parametrize("subject", ["/O=x/CN=rae-1", "/CN=rae-1/emailAddress=a@b", "/CN=rae-1+CN=u-x"])
def test_a_request_has_nothing_beside_its_name(tmp_path, subject):
    command = [
        "openssl",
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-multivalue-rdn",
    ]
    command += ["-keyout", tmp_path / "k", "-subj", subject, "-out", tmp_path / "r"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with pytest.raises(CertificateError, match="expected one CN and nothing else"):
        read((tmp_path / "r").read_bytes())


@pytest.mark.parametrize("name", ["rae\0-1", "u-team1", "admin", "svc-bridge", "canary-0001", "op-anna", "a b", "#"])
def test_a_raes_request_with_another_partys_name_is_refused(authority, name):
    with pytest.raises(NameRefusedError):
        authority.sign(read(request(name)), CertificateKind.RAE, now=NOW)
    assert authority.issued() == []


@pytest.mark.parametrize("name", ["rae-1", "team1", "admin", "u-", "U-team1", "svc-bridge", "u-a/b"])
def test_a_user_who_looks_like_somebody_else_is_refused(authority, name):
    with pytest.raises(NameRefusedError):
        authority.issue(name, CertificateKind.USER, now=NOW)
    assert authority.issued() == []


def test_weak_keys_and_what_is_no_request_are_refused():
    with pytest.raises(CertificateError, match=r"2048 bits or more, got 1024"):
        read(request("rae-1", key=rsa.generate_private_key(65_537, 1024)))
    with pytest.raises(CertificateError, match=r"expected a key of ECDSA"):
        read(request("rae-1", key=ec.generate_private_key(ec.SECP224R1())))
    for content in (b"", b"garbage", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(CertificateError, match=r"a.csr: expected a signing request"):
            read(content)


def test_a_request_that_another_key_has_signed_is_refused():
    good = foreign.load_pem_x509_csr(request("rae-1")).public_bytes(serialization.Encoding.DER)
    forged = foreign.load_der_x509_csr(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CertificateError, match="not signed by its own key"):
        read(forged.public_bytes(serialization.Encoding.PEM))


def test_no_certificate_outlives_the_ca(authority):
    signed = authority.issue("rae-1", CertificateKind.RAE, now=authority.ends_at - timedelta(days=1))
    assert signed.issued.not_after == authority.ends_at
    with pytest.raises(CertificateError, match="has ended"):
        authority.issue("rae-1", CertificateKind.RAE, now=authority.ends_at)


def test_what_was_signed_is_known_by_name_to_every_later_process(authority):
    first = authority.issue("a.b", CertificateKind.RAE, now=NOW).issued
    second = authority.issue("a.b", CertificateKind.RAE, now=NOW, days=30).issued
    authority.issue("a", CertificateKind.RAE, now=NOW)
    assert Authority.open(authority.folder).issued("a.b") == [second, first]
    assert len(authority.issued()) == 3


def serials(authority):
    found = foreign.load_pem_x509_crl(authority.list_file.read_bytes())
    assert found.is_signature_valid(
        foreign.load_pem_x509_certificate(authority.certificate_file.read_bytes()).public_key()
    )
    return [one.serial_number for one in found]


def test_the_list_is_there_from_the_first_day_and_holds_to_the_cas_end(authority):
    assert serials(authority) == []
    assert authority.list_ends_at == authority.ends_at


def test_a_list_holds_all_that_was_ever_revoked_and_is_later_than_the_one_before(authority):
    """OpenSSL takes the later one of two lists that it holds, and of two that are equally old the first."""
    found = [authority.issue(f"rae-{number}", CertificateKind.RAE, now=NOW).issued.serial for number in range(3)]
    lists = [foreign.load_pem_x509_crl(authority.list_file.read_bytes())]
    for when, serial in ((NOW, found[0]), (NOW, found[1]), (NOW - timedelta(days=1), found[2]), (NOW, found[0])):
        lists.append(foreign.load_pem_x509_crl(authority.revoke([serial], now=when)))
    assert serials(authority) == found
    updates = [one.last_update_utc for one in lists]
    assert updates == sorted(set(updates))
    assert updates[-1] < NOW  # a list of the future is as bad as none
    numbers = [one.extensions.get_extension_for_class(foreign.CRLNumber).value.crl_number for one in lists]
    assert numbers == [1, 2, 3, 4, 5]
    assert all(one.revoked_at is not None for one in authority.issued())


def test_one_process_at_a_time_changes_the_list(authority):
    before = authority.list_file.read_bytes()
    lock = InstanceLock(authority.folder / ".lock")
    try:
        with pytest.raises(CertificateError, match="another process changes this CA"):
            authority.revoke([1], now=NOW)
    finally:
        lock.release()
    assert authority.list_file.read_bytes() == before


def test_a_disk_that_refuses_is_a_sentence_and_changes_nothing(authority, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "crl.pem")

    before = authority.list_file.read_bytes()
    monkeypatch.setattr("dmpd.runtime.authority.write_whole", full)
    with pytest.raises(CertificateError, match=r"crl.pem: No space left on device"):
        authority.revoke([1], now=NOW)
    assert authority.list_file.read_bytes() == before


def test_the_key_stands_in_no_log(authority):
    signed = authority.issue("u-team1", CertificateKind.USER, now=NOW)
    assert b"PRIVATE KEY" in signed.key
    assert "PRIVATE" not in repr(signed)


def test_anothers_certificate_is_not_ours(authority, tmp_path):
    other = Authority.create(tmp_path / "other", name="test CA", now=NOW, durable=False)
    signed = other.issue("rae-1", CertificateKind.RAE, now=NOW)
    with pytest.raises(CertificateError, match="was not signed by this CA"):
        authority.read_own(signed.certificate, "rae-1.crt")


def test_a_request_keeps_no_more_than_name_and_key():
    found = read(request("rae-1"))
    assert isinstance(found, Request)
    assert found.name == "rae-1"


def test_what_was_signed_past_us_with_a_bad_name_can_be_revoked(authority):
    certificate = x509.make_client(
        "admin",
        x509.new_key().public_key(),
        authority=authority._certificate,
        key=authority._key,
        now=NOW,
        ends=NOW + timedelta(days=1),
    )
    found = authority.read_own(x509.pem(certificate), "admin.crt")
    assert (found.name, found.serial) == ("admin", certificate.serial_number)
    authority.revoke([found.serial], now=NOW)
    assert serials(authority) == [found.serial]
