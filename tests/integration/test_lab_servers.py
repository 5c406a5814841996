"""The lab's servers start, refuse strangers, and come back after a kill."""

import ssl

import pytest

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.server import takes_connections
from tests.support.services import KafkaService, MosquittoService, public_folder, start_kafka, start_postgres

pytestmark = pytest.mark.services


def _handshake(service: MosquittoService, authority: CertificateAuthority | None, principal: str) -> bytes:
    """Connect as MQTT 5 with what ``authority`` issued; returns the CONNACK, empty if the broker hung up."""
    import socket

    context = ssl.create_default_context(cafile=str(service.authority.ca_file))
    if authority is not None:
        files = authority.client(principal)
        context.load_cert_chain(files.cert, files.key)
    connect = b"\x10\x14\x00\x04MQTT\x05\x02\x00\x14\x00\x00\x07someone"
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(connect)
        return tls.recv(100)


def test_mosquitto_takes_a_client_of_its_own_authority(mosquitto: MosquittoService) -> None:
    answer = _handshake(mosquitto, mosquitto.authority, "lab-servers-1")
    assert answer[0] == 0x20
    assert answer[3] == 0


def test_mosquitto_refuses_a_client_without_certificate(mosquitto: MosquittoService) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(mosquitto, None, "")


def test_mosquitto_refuses_a_client_of_another_authority(mosquitto: MosquittoService) -> None:
    with public_folder() as folder, pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(mosquitto, CertificateAuthority(folder), "svc-bridge")


def test_kafka_keeps_its_topics_over_a_kill() -> None:
    from confluent_kafka.admin import AdminClient

    with public_folder() as folder, start_kafka(folder) as kafka:
        topic = kafka.create_topic(partitions=3)
        kafka.process.kill()
        assert not takes_connections(int(kafka.bootstrap_servers.rpartition(":")[2]))
        kafka.process.start()
        metadata = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=20)
        assert len(metadata.topics[topic].partitions) == 3


def test_each_test_gets_topics_of_its_own(kafka: KafkaService) -> None:
    assert kafka.create_topic() != kafka.create_topic()


def test_postgresql_keeps_its_databases_over_a_kill() -> None:
    import psycopg

    with public_folder() as folder, start_postgres(folder) as postgres:
        conninfo = postgres.server.create_database("kept")
        postgres.process.kill()
        postgres.process.start()
        with psycopg.connect(conninfo) as connection:
            row = connection.execute("SELECT current_database()").fetchone()
        assert row == ("kept",)
