"""Who may not speak with Kafka is told so in one sentence; who may, works through the same settings."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.server import free_ports
from dmpd.runtime import kafka_admin
from dmpd.runtime.kafka import KafkaRefusedError, KafkaUnreachableError, Producer, ensure_reachable
from dmpd.runtime.kafka_reader import TopicReader
from dmpd.runtime.settings import KafkaSettings
from tests.support.kafka_secure import PASSWORD, USER, SecureKafka
from tests.support.services import public_folder, start

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def good():
    with public_folder() as folder:
        certificate = CertificateAuthority(folder / "tls").server()
        port, controller_port = free_ports(2)
        server = SecureKafka(folder / "kafka", port=port, controller_port=controller_port, certificate=certificate)
        (folder / "password").write_text(f"{PASSWORD}\n")
        (folder / "wrong").write_text("wrong-password\n")
        (folder / "junk").write_text("no certificate\n")
        CertificateAuthority(folder / "stranger")
        with start(server):
            yield KafkaSettings(
                bootstrap_servers=f"127.0.0.1:{port}",
                security_protocol="SASL_SSL",
                sasl_mechanism="SCRAM-SHA-512",
                username=USER,
                password_file=str(folder / "password"),
                ca_file=str(certificate.ca),
            )


def test_right_password_over_tls_produces_and_reads(good):
    ensure_reachable(good, "test", 10.0)
    kafka_admin.create_topics(good, [kafka_admin.TopicSpec(name="t", partitions=1, replication_factor=1)])
    reports: list[str | None] = []
    producer = Producer(good, "test")
    producer.produce("t", key=b"k", value=b"secret", on_delivery=reports.append)
    assert producer.flush(20.0) == 0
    assert reports == [None]
    reader = TopicReader(good, "t", start="beginning")
    deadline_s = time.monotonic() + 20
    records = []
    while not records:
        assert time.monotonic() < deadline_s
        records = reader.read(0.5, 10)
    reader.close()
    assert [record.value for record in records] == [b"secret"]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"password_file": "wrong"}, KafkaRefusedError, "invalid credentials"),
        ({"username": "nobody"}, KafkaRefusedError, "invalid credentials"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, KafkaRefusedError, "SCRAM-SHA-512"),
        ({"ca_file": None}, KafkaRefusedError, "certificate"),
        ({"password_file": "absent"}, KafkaRefusedError, "No such file"),
        ({"ca_file": "absent"}, KafkaRefusedError, "No such file"),
        ({"ca_file": "junk"}, KafkaRefusedError, "ssl.ca.location"),
        ({"ca_file": "stranger/ca.crt"}, KafkaRefusedError, "certificate"),
        ({"security_protocol": "PLAINTEXT"}, KafkaUnreachableError, "kafka.security_protocol PLAINTEXT"),
    ],
)
def test_who_is_refused_is_told_why(good, change, error, said):
    folder = Path(good.password_file).parent
    change = {
        name: str(folder / value) if value and name.endswith("_file") else value for name, value in change.items()
    }
    began_s = time.monotonic()
    with pytest.raises(error) as refusal:
        ensure_reachable(replace(good, **change), "test", 1.0 if error is KafkaUnreachableError else 4.0)
    text = str(refusal.value)
    assert said in text
    assert PASSWORD not in text
    assert "\n" not in text
    assert time.monotonic() - began_s < 12


def test_reader_and_producer_say_so_too(good):
    wrong = replace(good, password_file=str(Path(good.password_file).with_name("wrong")))
    with pytest.raises(KafkaRefusedError, match="invalid credentials"):
        TopicReader(wrong, "t", timeout_s=2.0)
    junk = replace(good, ca_file=str(Path(good.password_file).with_name("junk")))
    for make in (lambda: TopicReader(junk, "t", timeout_s=2.0), lambda: Producer(junk, "test")):
        with pytest.raises(KafkaRefusedError, match=r"ssl\.ca\.location"):
            make()
