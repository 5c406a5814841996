"""Real servers for tests: one broker of each kind per test session, fresh topics and databases per test.

A machine without a server's program skips, with the reason; in CI (``CI=true``) that is a failure instead. A test that
kills or freezes a server takes one of its own from ``start_mosquitto`` and the like, never the session's.
"""

import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.kafka import Kafka
from dmpd.lab.mosquitto import Mosquitto
from dmpd.lab.postgresql import PostgreSQL
from dmpd.lab.server import Server, ServerError, free_ports
from dmpd.lab.server_process import ServerProcess
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings, MqttSettings

CRDB_URL = os.environ.get("DMPD_TEST_CRDB_URL")
"""Of a CockroachDB to run the tests of the database on, instead of PostgreSQL."""


def unavailable(reason: str) -> None:
    """Skip the test, or fail it where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class MosquittoService:
    """A running broker and the authority whose certificates it takes."""

    def __init__(self, process: ServerProcess, server: Mosquitto, authority: CertificateAuthority) -> None:
        self.process = process
        self.port = server.port
        self.folder = server.folder
        self.authority = authority

    def settings(self, principal: str) -> MqttSettings:
        """How ``principal`` (its certificate is issued if need be) connects."""
        return self.authority.client(principal).mqtt_settings(port=self.port)


class KafkaService:
    """A running Kafka. ``unique`` makes names for the topics and groups of one test."""

    def __init__(self, process: ServerProcess, server: Kafka) -> None:
        self.process = process
        self.bootstrap_servers = server.bootstrap_servers
        self.settings = KafkaSettings(bootstrap_servers=server.bootstrap_servers)

    @staticmethod
    def unique(prefix: str = "t") -> str:
        return f"{prefix}-{uuid.uuid4().hex[:10]}"

    def create_topic(self, name: str | None = None, *, partitions: int = 1) -> str:
        """Make a topic and wait until the broker knows it; returns its name."""
        from confluent_kafka.admin import AdminClient, NewTopic

        name = name or self.unique()
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)
        return name

    def end_offsets(self, topic: str) -> list[int]:
        """How many records each partition of ``topic`` has had."""
        from dmpd.runtime.kafka_admin import list_end_offsets

        ends = list_end_offsets(self.settings, topic)
        return [ends[number] for number in sorted(ends)]


class PostgreSQLService:
    """A running cluster."""

    def __init__(self, process: ServerProcess, server: PostgreSQL) -> None:
        self.process = process
        self.server = server

    @contextmanager
    def database(self) -> Iterator[DatabaseSettings]:
        """A fresh, empty database for as long as the context lasts."""
        name = f"t_{uuid.uuid4().hex[:10]}"
        yield DatabaseSettings(conninfo=self.server.create_database(name))
        self.server.drop_database(name)


class CockroachService:
    """A CockroachDB that runs already, in the place of the session's PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def database(self) -> Iterator[DatabaseSettings]:
        """A fresh, empty database for as long as the context lasts."""
        name = f"t_{uuid.uuid4().hex[:10]}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            yield DatabaseSettings(conninfo=make_conninfo(self._url, dbname=name))
            connection.execute(f"DROP DATABASE {name} CASCADE")


def only_postgresql() -> None:
    """Skip a test that needs what only PostgreSQL has (triggers that fail at will, its views of who waits)."""
    if CRDB_URL:
        pytest.skip("needs PostgreSQL, this run is on CockroachDB (DMPD_TEST_CRDB_URL)")


@contextmanager
def start(server: Server) -> Iterator[ServerProcess]:
    """Prepare and run any server of the lab; ended at the end of the context."""
    process = ServerProcess(server)
    try:
        server.prepare()
        process.start()
    except ServerError as error:
        if "not installed" not in str(error) and "no Kafka jars" not in str(error):
            raise
        unavailable(str(error))
    try:
        yield process
    finally:
        process.stop()


class _ConfiguredMosquitto(Mosquitto):
    """With other values for lines of its configuration, more lines, and more rules."""

    lines: Mapping[str, str] = {}
    rules = ""

    def prepare(self) -> None:
        super().prepare()
        path = self.folder / "mosquitto.conf"
        text = path.read_text()
        for name, value in self.lines.items():
            text, found = re.subn(rf"^{name} .*$", f"{name} {value}", text, flags=re.MULTILINE)
            if not found:
                text += f"\n{name} {value}\n"
        path.write_text(text)
        with (self.folder / "acl").open("a") as acl:
            acl.write(self.rules)


@contextmanager
def start_mosquitto(folder: Path, *, rules: str = "", **lines: str) -> Iterator[MosquittoService]:
    """A broker as the lab's with other or more ``lines`` in ``mosquitto.conf`` and ``rules`` added to its ACL."""
    authority = CertificateAuthority(folder / "tls")
    server = _ConfiguredMosquitto(folder / "mosquitto", port=free_ports(1)[0], authority=authority)
    server.lines, server.rules = lines, rules
    with start(server) as process:
        yield MosquittoService(process, server, authority)


@contextmanager
def start_kafka(folder: Path, kind: type[Kafka] = Kafka) -> Iterator[KafkaService]:
    port, controller_port = free_ports(2)
    server = kind(folder / "kafka", port=port, controller_port=controller_port)
    with start(server) as process:
        yield KafkaService(process, server)


@contextmanager
def start_postgres(folder: Path) -> Iterator[PostgreSQLService]:
    server = PostgreSQL(folder / "postgresql", durable=False)
    with start(server) as process:
        yield PostgreSQLService(process, server)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A temporary folder that the servers' own users can enter (pytest's ``tmp_path`` is ours alone)."""
    with tempfile.TemporaryDirectory(prefix="dmpd-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[MosquittoService]:
    """The session's MQTT broker: use principals of your own test (``unique`` serials), share nothing."""
    with public_folder() as folder, start_mosquitto(folder) as service:
        yield service


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaService]:
    """The session's Kafka: use topics and groups of your own test."""
    with public_folder() as folder, start_kafka(folder) as service:
        yield service


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQLService | CockroachService]:
    """PostgreSQL, or the CockroachDB that ``DMPD_TEST_CRDB_URL`` names."""
    if CRDB_URL:
        yield CockroachService(CRDB_URL)
        return
    with public_folder() as folder, start_postgres(folder) as service:
        yield service


@pytest.fixture
def postgres(postgres_server: PostgreSQLService | CockroachService) -> Iterator[DatabaseSettings]:
    """A fresh, empty database of the session's server, superuser."""
    with postgres_server.database() as settings:
        yield settings
