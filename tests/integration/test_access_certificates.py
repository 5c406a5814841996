"""Certificates on a real Mosquitto: revoked ones get in no more, and what the broker makes of a foreign PKI's mistakes.

The last tests show why a PKI must not sign certain names (docs/operations.md, Certificates): dmpd's own refuses them.
"""

import shlex
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as foreign
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from dmpd.cli import dmpctl
from dmpd.model.certificates import CertificateKind, NameRefusedError
from dmpd.runtime import exit_codes, x509
from tests.support import document_blocks
from tests.support.mqtt_raw import RawClient
from tests.support.services import public_folder, start_mosquitto

pytestmark = pytest.mark.services
REFUSED = (ssl.SSLError, ConnectionError, EOFError)
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch):
    """Connections are ended in test_access_revocation.py; here it is about the list."""
    monkeypatch.setattr("dmpd.cli.ca_revocation.end_connection", lambda *_, **__: None)


@pytest.fixture(scope="module")
def broker():
    with public_folder() as folder, start_mosquitto(folder) as service:
        service.crl = folder / "mosquitto" / "crl.pem"
        yield service


def context(broker, files, version=None):
    made = ssl.create_default_context(cafile=str(broker.authority.ca_file))
    made.load_cert_chain(files.cert, files.key)
    if version is not None:
        made.maximum_version = version
    return made


def connect(broker, name, *, tls=None, session=None):
    return RawClient(broker.port, tls or context(broker, broker.authority.client(name)), name, session=session)


def log_of(broker):
    return broker.process.log.read_text(errors="replace")


def configuration(broker, tmp_path):
    """What an operator has: the CA, where the broker reads its list, and how it is told."""
    config = tmp_path / "dmpd.yaml"
    command = f"[kill, -s, HUP, '{broker.process.pid}']"
    config.write_text(f"ca: {{folder: {broker.authority.folder}, crl_file: {broker.crl}, reload_command: {command}}}\n")
    return ["--config", str(config)]


def revoke(broker, tmp_path, *arguments):
    return dmpctl.main(["access", "ca", "revoke", *arguments, *configuration(broker, tmp_path)])


def refused_soon(broker, name, **how):
    """The broker reads its list at the next turn of its loop after the HUP. Waits for the first refusal."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            connect(broker, name, **how).close()
        except REFUSED:
            return True
        assert time.monotonic() < deadline_s, f"{name} still gets in\n{log_of(broker)[-2000:]}"
        time.sleep(0.05)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda one: one.name)
def test_a_revoked_rae_gets_in_no_more_and_nobody_else_notices(broker, tmp_path, version):
    name, bystander = f"gone-{version.name}", connect(broker, f"bystander-{version.name}")
    tls = context(broker, broker.authority.client(name), version)
    before = connect(broker, name, tls=tls)
    session = before.session
    before.close()
    again = connect(broker, name, tls=tls, session=session)
    assert again.session_reused  # the test can fail: a TLS session of before is good as long as the certificate is
    session = again.session
    again.close()
    assert revoke(broker, tmp_path, name) == exit_codes.OK
    assert refused_soon(broker, name)
    with pytest.raises(REFUSED):  # nor by the TLS session that it had, in which no certificate is shown
        connect(broker, name, tls=tls, session=session)
    bystander.ping()
    bystander.close()
    connect(broker, f"newcomer-{version.name}").close()


def test_each_of_several_that_are_revoked_at_once_is_out(broker, tmp_path):
    names = [f"at-once-{number}" for number in range(3)]
    for name in names:
        connect(broker, name).close()
    assert [revoke(broker, tmp_path, name) for name in names] == [exit_codes.OK] * 3
    assert all(refused_soon(broker, name) for name in names)


def test_one_of_two_certificates_of_a_name_is_revoked(broker, tmp_path):
    """A router whose key was stolen is enrolled anew: the old certificate is out, the new one in."""
    old = broker.authority.client("twice")
    serial = foreign.load_pem_x509_certificate(old.cert.read_bytes()).serial_number
    signed = broker.authority.authority.issue("twice", CertificateKind.RAE, now=datetime.now(UTC))
    (tmp_path / "new.crt").write_bytes(signed.certificate)
    (tmp_path / "new.key").write_bytes(signed.key)
    assert revoke(broker, tmp_path, "--serial", f"{serial:x}") == exit_codes.OK
    assert refused_soon(broker, "twice")
    tls = ssl.create_default_context(cafile=str(broker.authority.ca_file))
    tls.load_cert_chain(tmp_path / "new.crt", tmp_path / "new.key")
    connect(broker, "twice", tls=tls).close()


def test_the_operations_guides_words_refuse_a_rae(broker, tmp_path, monkeypatch):
    _, config = configuration(broker, tmp_path)
    monkeypatch.setenv("DMPD_CONFIG", config)
    connect(broker, "rae-0001").close()
    (block,) = document_blocks.of_kind("tests/integration/test_access_certificates.py")
    (command,) = block.commands
    assert dmpctl.main(shlex.split(command)[1:]) == exit_codes.OK
    assert refused_soon(broker, "rae-0001")


def test_with_the_brokers_own_certificate_nobody_logs_in(broker):
    files = broker.authority.server()
    with pytest.raises(REFUSED):
        RawClient(broker.port, context(broker, files), "localhost")


def test_past_the_end_of_its_list_a_broker_lets_nobody_in():
    """Why dmpd's lists hold to the CA's end, and why the end of a foreign PKI's list is watched."""
    with public_folder() as folder, start_mosquitto(folder) as broker:
        connect(broker, "rae-1").close()
        authority, now = broker.authority.authority, datetime.now(UTC)
        ended = (
            foreign.CertificateRevocationListBuilder()
            .issuer_name(authority._certificate.subject)
            .last_update(now - timedelta(minutes=30))
            .next_update(now - timedelta(minutes=1))
            .sign(authority._key, hashes.SHA256())
        )
        (folder / "mosquitto" / "crl.pem").write_bytes(x509.pem(ended))
        broker.process.kill()
        broker.process.start()
        with pytest.raises(REFUSED):
            connect(broker, "rae-1")


def foreign_certificate(broker, folder, *names):
    """What a PKI would have to refuse, by the key of ours."""
    authority, key, now = broker.authority.authority, x509.new_key(), datetime.now(UTC)
    subject = foreign.Name([foreign.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    certificate = (
        foreign.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority._certificate.subject)
        .public_key(key.public_key())
        .serial_number(foreign.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(authority._key, hashes.SHA256())
    )
    (folder / "c.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "c.key").write_bytes(x509.key_pem(key))
    tls = ssl.create_default_context(cafile=str(broker.authority.ca_file))
    tls.load_cert_chain(folder / "c.crt", folder / "c.key")
    return tls


def rights_of(broker, tls, serial):
    """Whether somebody with this certificate may publish as the RAE ``serial``: 0x87 says no. Closes."""
    client = RawClient(broker.port, tls, "whoever")
    try:
        return client.publish(f"dmp/v1/{serial}/rae/info")
    finally:
        client.close()


def test_a_user_called_like_a_serial_is_that_rae(broker, tmp_path):
    with pytest.raises(NameRefusedError, match="is the name of a RAE"):
        broker.authority.authority.issue("rae-0001", CertificateKind.USER, now=datetime.now(UTC))
    assert rights_of(broker, foreign_certificate(broker, tmp_path, "rae-0001"), "rae-0001") in (0x00, 0x10)


def test_of_two_names_the_first_counts(broker, tmp_path):
    tls = foreign_certificate(broker, tmp_path, "first", "second")
    assert rights_of(broker, tls, "first") in (0x00, 0x10)
    assert rights_of(broker, tls, "second") == 0x87


def test_a_name_with_a_nul_is_not_let_in(broker, tmp_path):
    tls = foreign_certificate(broker, tmp_path, "rae-1\0evil")
    with pytest.raises(REFUSED):
        rights_of(broker, tls, "rae-1")


def test_a_name_that_is_a_filter_is_not_let_in_or_has_no_rights(broker, tmp_path):
    for name in ("+", "#", "a/b"):
        tls = foreign_certificate(broker, tmp_path, name)
        try:
            assert rights_of(broker, tls, "rae-0001") == 0x87
        except REFUSED:
            continue


def test_admin_has_the_rights_of_a_rae_of_that_name_and_no_others(broker, tmp_path):
    tls = foreign_certificate(broker, tmp_path, "admin")
    assert rights_of(broker, tls, "admin") in (0x00, 0x10)
    assert rights_of(broker, tls, "rae-0001") == 0x87
    client = RawClient(broker.port, tls, "admin")
    assert client.publish("$CONTROL/dynamic-security/v1") == 0x87
    client.close()


def test_no_name_at_all_is_not_let_in(broker, tmp_path):
    tls = foreign_certificate(broker, tmp_path)
    with pytest.raises(REFUSED):
        RawClient(broker.port, tls, "nobody")
