"""Who is measured: dmpd and the peers, each a child process that reads a topic and fills a database of its own."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import yaml

from dmpd.runtime import health
from tests.bench.cloud_registry import fleet as load
from tests.bench.cloud_registry.fleet import Fleet
from tests.bench.cloud_registry.servers import PARTITIONS, Servers
from tests.bench.stream import processes

ROOT: Final = Path(__file__).resolve().parents[3]
BUILD: Final = ROOT / "build" / "bench" / "peers"
_PEERS: Final = Path(__file__).resolve().with_name("peers")
_SESSION_TIMEOUT_MS: Final = 6000


class Contender:
    """One process tree. ``start`` and ``kill`` may alternate (same group, same database); ``close`` ends all."""

    name: str
    format: Callable[[Fleet, int, int, str], bytes]
    id_name: str
    progress_sql: str
    """One row: sum of the revisions of all rows."""
    rows_sql: str
    """session, rae, rev, state, esn, attribute fw."""
    commits_sql: str
    """session, rev, commit time of the row in seconds."""
    tables: Sequence[str]
    """The one with a row for each session first."""
    session_column: str

    def __init__(self, servers: Servers, topic: str) -> None:
        self.servers = servers
        self.topic = topic
        mark = uuid.uuid4().hex[:8]
        self.group = f"g-{self.name}-{mark}"
        self.dead = servers.create_topic(f"dead-{self.name}-{mark}", 1)
        self.database = f"b_{self.name.replace('-', '_')}"
        self.dsn = servers.create_database(self.database)
        self.folder = ROOT / "build" / "bench" / "run" / f"{self.name}-{mark}"
        self.folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._ended_cpu_s: dict[str, float] = {}
        self.pss_peak_mib = 0.0
        self.prepare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.servers.delete_topic(self.dead)

    def prepare(self) -> None:
        raise NotImplementedError

    def command(self) -> tuple[list[str], Path, dict[str, str]]:
        """Words, folder, environment."""
        raise NotImplementedError

    def start(self) -> None:
        words, cwd, environment = self.command()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                words,
                cwd=cwd,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._stop_watching = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """KILL of all its processes, at once."""
        if self._process is None:
            return
        for part, spent_s in self.cpu_parts().items():
            self._ended_cpu_s[part] = spent_s
        self._stop_watching.set()
        self._watcher.join()
        pids = [self._process.pid, *processes.descendants(self._process.pid)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None

    def cpu_parts(self) -> dict[str, float]:
        """CPU seconds by kind of process since the first start."""
        found = dict(self._ended_cpu_s)
        if self._process is not None:
            for part, pids in self._parts().items():
                found[part] = found.get(part, 0.0) + processes.cpu_s(pids)
        return found

    def _parts(self) -> dict[str, list[int]]:
        assert self._process is not None
        return {"all": [self._process.pid, *processes.descendants(self._process.pid)]}

    def _watch(self) -> None:
        while not self._stop_watching.wait(0.5):
            if self._process is not None:
                pids = [self._process.pid, *processes.descendants(self._process.pid)]
                self.pss_peak_mib = max(self.pss_peak_mib, processes.pss_mib(pids))

    def has_begun(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether it has taken the first record; the start of its JVM or interpreter is not what is compared."""
        return self.progress(connection) > 0

    def progress(self, connection: psycopg.Connection[Any]) -> int:
        return int(connection.execute(self.progress_sql).fetchone()[0])  # type: ignore[index]

    def read_again(self, connection: psycopg.Connection[Any]) -> int:
        """How many records are in the database that its successor will read; 0 if that cannot be said."""
        return 0

    def refuse_in_database(self, connection: psycopg.Connection[Any]) -> None:
        """Have the database refuse what ``fleet.spoil`` makes for it."""
        raise NotImplementedError

    def load_rows(self, fleet: Fleet, devices: int) -> None:
        """Complete rows of the first ``devices`` at revision 1, as if they had been written long ago."""
        raise NotImplementedError


class Dmpd(Contender):
    name = "dmpd"
    linger_ms = 0
    session_column = "session"
    id_name = "session"
    progress_sql = "SELECT coalesce(sum(rev), 0) FROM device_session"
    rows_sql = """SELECT s.session::text, s.rae, s.rev, s.state, s.esn, a.value #>> '{}' FROM device_session s
        LEFT JOIN device_attribute a ON a.rae = s.rae AND a.session = s.session AND a.name = 'fw'
        WHERE NOT s.stale AND s.closed_at IS NULL AND s.absent_at IS NULL"""
    commits_sql = """SELECT session::text, rev, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8
        FROM device_session"""
    tables = ("device_session", "device_attribute", "device_interface", "device_event", "rae")

    @staticmethod
    def format(fleet: Fleet, device: int, rev: int, at: str) -> bytes:
        return fleet.dmpd(device, rev, at)

    def prepare(self) -> None:
        topics = {name: f"{self.group}.{name}" for name in ("rsp", "cmd")}
        self.bind = f"unix:{self.folder}/s"
        config = {
            "kafka": {"bootstrap_servers": self.servers.bootstrap},
            "topics": topics
            | {
                "info": self.topic,
                "info_dead": self.dead,
                "partitions": PARTITIONS,
                "replication_factor": 1,
                "min_insync_replicas": 1,
            },
            "database": {"conninfo": self.dsn},
            "cloud_registry": {
                "health_bind": self.bind,
                "stream": {
                    "topic": self.topic,
                    "dead_letter_topic": self.dead,
                    "group": self.group,
                    "session_timeout_s": _SESSION_TIMEOUT_MS / 1000,
                    "linger_ms": self.linger_ms,
                },
            },
        }
        self._config = self.folder / "dmpd.yaml"
        self._config.write_text(yaml.safe_dump(config))
        subprocess.run(
            [self._program(), "migrate", "--config", str(self._config)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
        )

    def command(self) -> tuple[list[str], Path, dict[str, str]]:
        return [self._program(), "cloud-registry", "--config", str(self._config)], ROOT, {}

    def read_again(self, connection: psycopg.Connection[Any]) -> int:
        asked = """SELECT coalesce(sum(last + 1), 0)
            FROM (SELECT max(kafka_offset) AS last FROM device_session GROUP BY kafka_partition) AS p"""
        return int(connection.execute(asked).fetchone()[0]) - self.servers.committed(self.group, self.topic)  # type: ignore[index]

    def refuse_in_database(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"ALTER TABLE device_attribute ADD CHECK (name <> '{load.REFUSED}')".encode())

    def has_begun(self, connection: psycopg.Connection[Any]) -> bool:
        return self.metric("dmpd_stream_records_total") > 0

    def metric(self, name: str) -> float:
        try:
            _, body = health.fetch(self.bind, "/metrics")
        except OSError:
            return 0.0
        found = [line.split()[-1] for line in body.decode().splitlines() if line.startswith(f"{name} ")]
        return float(found[0]) if found else 0.0

    def _parts(self) -> dict[str, list[int]]:
        assert self._process is not None
        below = processes.descendants(self._process.pid)
        return {"parent": [self._process.pid], "workers": below}

    @staticmethod
    def _program() -> str:
        return str(Path(sys.executable).with_name("dmpd"))

    def load_rows(self, fleet: Fleet, devices: int) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            with connection.cursor().copy(
                "COPY device_session (rae, session, epoch, rev, seq, stale, esn, state, changed_at, kafka_partition,"
                " kafka_offset, applied_at) FROM STDIN"
            ) as copy:
                for n in range(devices):
                    copy.write_row(
                        (
                            fleet.raes[n],
                            fleet.sessions[n],
                            load.EPOCH,
                            1,
                            1,
                            False,
                            fleet.esns[n],
                            load.STATES[1],
                            load.at(1_760_000_000),
                            fleet.partitions[n],
                            0,
                            load.at(1_760_000_000),
                        )
                    )
            with connection.cursor().copy(
                "COPY device_interface (rae, session, place, mac, ip4, ip6, mac_random) FROM STDIN"
            ) as copy:
                for n in range(devices):
                    copy.write_row((fleet.raes[n], fleet.sessions[n], 0, fleet.macs[n], fleet.ips[n], "[]", False))
            with connection.cursor().copy("COPY device_attribute (rae, session, name, value) FROM STDIN") as copy:
                import msgspec

                for n in range(devices):
                    for name, value in msgspec.json.decode(fleet.attributes(n, 1)).items():
                        copy.write_row((fleet.raes[n], fleet.sessions[n], name, msgspec.json.encode(value).decode()))
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")


class Dmpd50(Dmpd):
    """Gathers for up to 50 ms."""

    name = "dmpd-50"
    linger_ms = 50


class Peer(Contender):
    id_name = session_column = "device_session_id"
    progress_sql = "SELECT coalesce(sum(rev), 0) FROM device"
    rows_sql = "SELECT device_session_id::text, rae, rev, state, esn, attributes->>'fw' FROM device"
    commits_sql = """SELECT device_session_id::text, rev, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8
        FROM device"""
    tables = ("device",)
    source = ""
    main: Sequence[str] = ()

    @staticmethod
    def format(fleet: Fleet, device: int, rev: int, at: str) -> bytes:
        return fleet.peer(device, rev, at)

    def prepare(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE device (device_session_id uuid PRIMARY KEY, rae text, rev bigint, at timestamptz,"
                " state text, esn text, attributes jsonb)"
            )

    def command(self) -> tuple[list[str], Path, dict[str, str]]:
        environment = {
            "BOOTSTRAP": self.servers.bootstrap,
            "TOPIC": self.topic,
            "GROUP": self.group,
            "PG_DSN": self.dsn,
            "PG_TABLE": "device",
            "DLT": self.dead,
            "SESSION_MS": str(_SESSION_TIMEOUT_MS),
        }
        return list(self.main), BUILD / self.source, environment

    @classmethod
    def build(cls) -> None:
        """Compile it, unless that was done. Blocks for up to minutes (Maven fetches what it needs)."""
        folder = BUILD / cls.source
        if (folder / "built").exists():
            return
        shutil.copytree(_PEERS / cls.source, folder, dirs_exist_ok=True)
        if (folder / "pom.xml").exists():
            sources = folder / "src" / "main" / "java"
            sources.mkdir(parents=True, exist_ok=True)
            for file in [*(_PEERS / "java-common").glob("*.java"), *folder.glob("*.java")]:
                shutil.copy(file, sources)
            subprocess.run(
                [
                    "mvn",
                    "-q",
                    "-B",
                    "clean",
                    "package",
                    "dependency:copy-dependencies",
                    "-DoutputDirectory=target/libs",
                    "-Dmaven.test.skip",
                ],
                cwd=folder,
                check=True,
            )
        else:
            shutil.copytree(_PEERS / "python-common", folder, dirs_exist_ok=True)
        (folder / "built").touch()

    def load_rows(self, fleet: Fleet, devices: int) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            with connection.cursor().copy("COPY device FROM STDIN") as copy:
                for n in range(devices):
                    copy.write_row(
                        (
                            fleet.sessions[n],
                            fleet.raes[n],
                            1,
                            load.at(1_760_000_000),
                            load.STATES[1],
                            fleet.esns[n],
                            fleet.attributes(n, 1),
                        )
                    )
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")


_JAVA: Final = (
    "java",
    "-Xmx1g",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-cp",
    "target/classes:target/libs/*",
)


class Plain(Peer):
    name = "plain"
    source = "plain"
    main = (sys.executable, "main.py")


class SpringBatch(Peer):
    name = "spring-batch"
    source = "spring"
    main = (*_JAVA, "Main", "batch")


class Pekko(Peer):
    name = "pekko"
    source = "pekko"
    main = (*_JAVA, "Main")


class Parallel(Peer):
    name = "parallel"
    source = "parallel"
    main = (*_JAVA, "Main")


PEERS: Final[dict[str, type[Peer]]] = {one.name: one for one in (Plain, SpringBatch, Pekko, Parallel)}


def wait_for(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Whether it came true in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(every_s)
    return True
