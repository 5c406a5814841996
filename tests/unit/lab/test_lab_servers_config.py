"""What the lab writes for its servers and finds for them."""

import socket
import stat

import pytest
from cryptography import x509

from dmpd.lab import mosquitto as mosquitto_module
from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.mosquitto import Mosquitto
from dmpd.lab.postgresql import PostgreSQL
from dmpd.lab.server import ServerError, free_ports, takes_connections


def test_free_ports_differ_and_avoid_what_is_taken():
    ports = free_ports(50)
    assert len(set(ports)) == 50
    with socket.create_server(("127.0.0.1", ports[0])):
        assert takes_connections(ports[0])
        assert ports[0] not in free_ports(50)
    assert not takes_connections(ports[0])


def test_a_principal_is_the_cn_of_its_certificate_and_its_key_is_its_own(tmp_path):
    files = CertificateAuthority(tmp_path / "tls").client("rae-7")
    certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
    assert [name.value for name in certificate.subject] == ["rae-7"]
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_an_authority_is_found_again_and_keeps_what_it_issued(tmp_path):
    first = CertificateAuthority(tmp_path / "tls").client("rae-7")
    content = first.cert.read_bytes()
    again = CertificateAuthority(tmp_path / "tls").client("rae-7")
    assert again.cert.read_bytes() == content
    other = CertificateAuthority(tmp_path / "tls").client("rae-8")
    issuer = x509.load_pem_x509_certificate((tmp_path / "tls" / "ca.crt").read_bytes())
    x509.load_pem_x509_certificate(other.cert.read_bytes()).verify_directly_issued_by(issuer)


def test_the_broker_listens_on_each_address_with_all_its_rules(tmp_path, monkeypatch):
    monkeypatch.setattr(mosquitto_module, "_binary", lambda: "/usr/sbin/mosquitto")
    authority = CertificateAuthority(tmp_path / "tls")
    Mosquitto(tmp_path / "mq", port=18883, authority=authority, more_addresses=["10.1.2.3"]).prepare()
    text = (tmp_path / "mq" / "mosquitto.conf").read_text()
    assert not any("@" in line for line in text.splitlines() if not line.startswith("#"))
    for address in ("127.0.0.1", "10.1.2.3"):
        block = text[text.index(f"listener 18883 {address}\n") :].split("listener", 2)[1]
        for rule in ("require_certificate true", "use_identity_as_username true", "use_username_as_clientid true"):
            assert rule in block
    server = x509.load_pem_x509_certificate((tmp_path / "mq" / "server.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(address) for address in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "10.1.2.3"}


@pytest.mark.parametrize("name", ["a; DROP", "A", "", "1a", 'a"b'])
def test_only_plain_names_become_databases(tmp_path, name):
    with pytest.raises(ServerError, match="plain"):
        PostgreSQL(tmp_path / "pg").create_database(name)
