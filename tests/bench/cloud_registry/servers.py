"""Kafka and PostgreSQL for this benchmark: fsync and synchronous_commit on, commit times kept, TCP for JDBC."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from dmpd.lab.postgresql import SUPERUSER, PostgreSQL
from dmpd.lab.server import free_ports
from dmpd.lab.server_process import ServerProcess
from tests.bench.kafka import BenchKafka
from tests.bench.stream import processes
from tests.support.services import public_folder, start

PARTITIONS = 12


class _PostgreSQL(PostgreSQL):
    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, durable=True)
        self.port = port

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "shared_buffers": "256MB",
            "track_commit_timestamp": "on",
            "max_connections": "120",
        }
        return [*super().command(), *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, database: str) -> str:
        """A URI that libpq takes, and JDBC with ``jdbc:`` before it."""
        return f"postgresql://127.0.0.1:{self.port}/{database}?user={SUPERUSER}"


class Servers:
    """Both, running."""

    def __init__(self, kafka: ServerProcess, bootstrap: str, postgres: ServerProcess, server: _PostgreSQL) -> None:
        self.kafka = kafka
        self.bootstrap = bootstrap
        self.postgres = postgres
        self._server = server
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        self._probe = Consumer({"bootstrap.servers": bootstrap, "group.id": "probe", "log_level": 2})
        self.hands = ThreadPoolExecutor(1)
        """Does what happens to servers in the middle of a run. One thread for all time, because a server that it starts
        ends with it (``--pdeathsig`` means the thread)."""

    def dsn(self, database: str) -> str:
        return self._server.dsn(database)

    def create_database(self, name: str) -> str:
        """A new, empty database ``name``, whatever there was."""
        with contextlib.closing(psycopg.connect(self.dsn("postgres"), autocommit=True)) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
            connection.execute("CHECKPOINT")
        return self.dsn(name)

    def create_topic(self, name: str, partitions: int = PARTITIONS) -> str:
        self._admin.create_topics([NewTopic(name, partitions, 1)])[name].result(20)
        deadline_s = time.monotonic() + 20
        while name not in self._admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        return name

    def delete_topic(self, name: str) -> None:
        self._admin.delete_topics([name])[name].result(20)

    def records_in(self, topic: str) -> int:
        count = len(self._admin.list_topics(topic, timeout=10).topics[topic].partitions)
        marks = [self._probe.get_watermark_offsets(TopicPartition(topic, n), timeout=10) for n in range(count)]
        return sum(high - low for low, high in marks)

    def values_in(self, topic: str) -> list[bytes]:
        """Of all records of its only partition."""
        place = TopicPartition(topic, 0)
        _, end = self._probe.get_watermark_offsets(place, timeout=10)
        self._probe.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        deadline_s = time.monotonic() + 30
        while len(found) < end and time.monotonic() < deadline_s:
            found += [message.value() or b"" for message in self._probe.consume(1000, 0.2) if message.error() is None]
        self._probe.unassign()
        return found

    def committed(self, group: str, topic: str) -> int:
        """Sum of the group's committed offsets."""
        with contextlib.closing(
            Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 2})
        ) as asking:
            found = asking.committed([TopicPartition(topic, n) for n in range(PARTITIONS)], timeout=10)
        return sum(max(0, one.offset) for one in found)

    def kafka_cpu_s(self) -> float:
        return processes.cpu_s([self.kafka.pid, *processes.descendants(self.kafka.pid)])

    def postgres_cpu_s(self) -> float:
        """Of all its processes, those included that have ended (in ticks of 10 ms)."""
        pid = self.postgres.pid
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        reaped = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        return reaped + processes.cpu_s([pid, *processes.descendants(pid)])

    def kill_postgres(self) -> None:
        """As a power cut: all its processes at once."""
        below = processes.descendants(self.postgres.pid)
        self.postgres.kill()
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it saw its parent die
                continue

    def restart_postgres(self) -> None:
        """Blocks until it takes connections."""
        self.postgres.start()

    def freeze_postgres(self) -> None:
        for pid in (self.postgres.pid, *processes.descendants(self.postgres.pid)):
            os.kill(pid, signal.SIGSTOP)

    def thaw_postgres(self) -> None:
        for pid in (self.postgres.pid, *processes.descendants(self.postgres.pid)):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def running() -> Iterator[Servers]:
    """Both servers of this run's own; ended at the end of the context."""
    kafka_port, controller_port, postgres_port = free_ports(3)
    with public_folder() as folder:
        kafka = BenchKafka(folder / "kafka", port=kafka_port, controller_port=controller_port)
        postgres = _PostgreSQL(folder / "postgresql", postgres_port)
        with start(kafka) as broker, start(postgres) as cluster:
            yield Servers(broker, kafka.bootstrap_servers, cluster, postgres)
