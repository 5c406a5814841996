"""A, B, C, G: catching up with a backlog; with poison in it, the same records again, or a kill in the middle."""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer
from msgspec import Struct

from tests.bench.cloud_registry.contenders import Contender, Dmpd
from tests.bench.cloud_registry.fleet import BAD_KINDS, Backlog, Fleet, spoil
from tests.bench.cloud_registry.servers import Servers

_SEED = 20251026
_LIMIT_S = 180.0


class Filled(Struct, frozen=True):
    """A topic with a backlog, read by each contender through a group of its own."""

    topic: str
    backlog: Backlog
    poison: Counter[bytes] = Counter()
    """The values that are to be dead letters."""


class Run(Struct, kw_only=True):
    """One contender on one backlog."""

    name: str
    per_s: float
    seconds: float
    cpu_us: dict[str, float]
    """Per update, by process: its own parts, ``postgres``, ``kafka``."""
    rows: float
    """Written per update."""
    wal_bytes: float
    commits_per_s: float
    pss_mib: float
    dead_letters: int
    wrong: int
    foreign_cores: float
    recover_s: float = 0.0
    """From the kill to the final state, if there was one."""
    duplicates: int = 0
    """Records that were in the database at the kill and were read again, if there was one."""
    unjust: int = 0
    """Poison that is no dead letter, and dead letters that are no poison."""
    replay: "Run | None" = None

    @property
    def cpu_us_all(self) -> float:
        return sum(self.cpu_us.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {spent:.1f}" for part, spent in self.cpu_us.items())
        return (
            f"{self.name}: {self.per_s:,.0f}/s in {self.seconds:.1f} s; CPU us/update {self.cpu_us_all:.1f} ({parts});"
            f" {self.rows:.2f} rows, {self.wal_bytes:.0f} B WAL, {self.commits_per_s:.0f} commits/s;"
            f" {self.pss_mib:.0f} MiB; {self.dead_letters} dead, {self.wrong} wrong;"
            f" others {self.foreign_cores:.2f} cores"
            + (f"; recovered in {self.recover_s:.1f} s, {self.duplicates} again" if self.recover_s else "")
            + (f"; {self.unjust} unjust" if self.unjust else "")
        )


def fill(servers: Servers, contender: type[Contender], letter: str, records: int, sessions: int, bad: float) -> Filled:
    """Make the topic. The same updates in the same order for all, each in the format of its reader."""
    fleet = Fleet(sessions, _SEED + ord(letter))
    backlog = Backlog(fleet, records, _SEED + ord(letter) + 1, bad_share=bad)
    kind = "dmpd" if contender is Dmpd else "peers"
    topic = servers.create_topic(f"{letter}-{kind}-{records}-{time.time_ns()}")
    producer = Producer(
        {
            "bootstrap.servers": servers.bootstrap,
            "linger.ms": 5,
            "batch.size": 262144,
            "log_level": 2,
            "queue.buffering.max.messages": 1_000_000,
            "enable.idempotence": True,
        }
    )
    size_bytes = 0
    poison: list[bytes] = []
    for number, (device, rev, moment, is_bad) in enumerate(backlog.updates()):
        value = contender.format(fleet, device, rev, moment)
        size_bytes += len(value)
        if is_bad:
            content = "record" if contender is not Dmpd or rev == 1 else "set"
            value = spoil(len(poison) % BAD_KINDS, value, rev, id_name=contender.id_name, content=content)
            poison.append(value)
        # dmpd's bridge partitions by RAE, and so it is for all: one order per RAE.
        producer.produce(topic, value, fleet.keys[device], fleet.partitions[device])
        if number % 2000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0
    print(f"{topic}: {records} records of {size_bytes / records:.0f} B, {sessions} sessions", flush=True)
    return Filled(topic, backlog, Counter(poison))


class Meter:
    """What was used and written since it was made."""

    def __init__(self, contender: Contender, connection: psycopg.Connection[Any]) -> None:
        self._contender = contender
        self._connection = connection
        self._before = self._read()

    def since(self) -> dict[str, float]:
        return {name: value - self._before.get(name, 0.0) for name, value in self._read().items()}

    def _read(self) -> dict[str, float]:
        servers, contender = self._contender.servers, self._contender
        found = {f"cpu.{part}": spent_s for part, spent_s in contender.cpu_parts().items()}
        found["cpu.postgres"] = servers.postgres_cpu_s()
        found["cpu.kafka"] = servers.kafka_cpu_s()
        found["wal"] = float(self._one("SELECT pg_current_wal_lsn() - '0/0'"))
        self._connection.execute("SELECT pg_stat_clear_snapshot()")
        found["commits"] = float(
            self._one("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        )
        found["rows"] = float(
            self._one("SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables")
        )
        found["busy"] = _machine_busy_s()
        found["time"] = time.time()
        return found

    def _one(self, statement: str) -> Any:
        return self._connection.execute(statement).fetchone()[0]  # type: ignore[index]


def _machine_busy_s() -> float:
    fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / 100


def run(
    servers: Servers, kind: type[Contender], filled: Filled, *, kill_at: float | None = None, replay: bool = False
) -> Run:
    """Let it read the backlog to its end. Blocks. Raises RuntimeError if it does not get there."""
    backlog = filled.backlog
    with (
        kind(servers, filled.topic) as contender,
        contextlib.closing(psycopg.connect(contender.dsn, autocommit=True)) as connection,
    ):
        if filled.poison:
            contender.refuse_in_database(connection)
        done = _catch_up(contender, connection, backlog, kill_at)
        if filled.poison:
            dead = Counter(servers.values_in(contender.dead))
            done.unjust = ((dead - filled.poison) + (filled.poison - dead)).total()
        if replay:
            contender.kill()
            contender.group += "-again"
            contender.prepare()
            done.replay = _catch_up(contender, connection, backlog, None, again=True)
        return done


def _catch_up(
    contender: Contender,
    connection: psycopg.Connection[Any],
    backlog: Backlog,
    kill_at: float | None,
    *,
    again: bool = False,
) -> Run:
    servers = contender.servers
    wanted = sum(backlog.revs)
    contender.start()
    _wait(contender, lambda: contender.has_begun(connection), 0.02)
    began_s = time.time()
    meter = Meter(contender, connection)
    killed_s, duplicates = 0.0, 0
    passed = lambda: contender.metric("dmpd_stream_passed_records_total") >= backlog.records  # noqa: E731
    deadline_s = time.monotonic() + _LIMIT_S
    while not (passed() if again else contender.progress(connection) >= wanted):
        if not contender.alive() or time.monotonic() > deadline_s:
            log = (contender.folder / "log").read_text()[-2000:]
            at = contender.progress(connection)
            raise RuntimeError(f"{contender.name}: at {at} of {wanted} when it ended or time was up\n{log}")
        if kill_at is not None and not killed_s and contender.progress(connection) >= kill_at * wanted:
            contender.kill()
            killed_s = time.time()
            duplicates = contender.read_again(connection)
            contender.start()
        time.sleep(0.05 if again else 0.1)
    used = meter.since()
    last_s = max(commit_s for _, _, commit_s in connection.execute(contender.commits_sql))
    ended_s = time.time() if again else last_s
    seconds = max(ended_s - began_s, 1e-3)
    cpu = {part[4:]: spent / backlog.records * 1e6 for part, spent in used.items() if part.startswith("cpu.")}
    time.sleep(1.2)  # backends tell the statistics at most once a second
    written = meter.since()
    if backlog.bad:
        _wait(contender, lambda: servers.records_in(contender.dead) >= backlog.bad, 0.2)
    ours_s = sum(value for name, value in used.items() if name.startswith("cpu."))
    return Run(
        name=contender.name,
        per_s=backlog.records / seconds,
        seconds=seconds,
        cpu_us=cpu,
        rows=written["rows"] / backlog.records,
        wal_bytes=written["wal"] / backlog.records,
        commits_per_s=written["commits"] / seconds,
        pss_mib=contender.pss_peak_mib,
        dead_letters=servers.records_in(contender.dead),
        wrong=wrong_rows(contender, connection, backlog.fleet, backlog.revs),
        foreign_cores=max(0.0, (used["busy"] - ours_s) / used["time"]),
        recover_s=ended_s - killed_s if killed_s else 0.0,
        duplicates=duplicates,
    )


def _wait(contender: Contender, condition: Any, every_s: float) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline_s or not contender.alive():
            raise RuntimeError(f"{contender.name}: nothing happens\n{(contender.folder / 'log').read_text()[-2000:]}")
        time.sleep(every_s)


def wrong_rows(contender: Contender, connection: psycopg.Connection[Any], fleet: Fleet, revs: Sequence[int]) -> int:
    """Rows that are missing, too many, or say something else than their last revision."""
    expected = {fleet.sessions[n]: fleet.expected(n, rev) for n, rev in enumerate(revs) if rev}
    found = {session: tuple(said) for session, *said in connection.execute(contender.rows_sql)}
    differing = [session for session, said in expected.items() if found.get(session) != said]
    for session in differing[:3]:
        print(f"wrong: {session} is {found.get(session)}, expected {expected[session]}", flush=True)
    return len(differing) + len(found.keys() - expected.keys())
