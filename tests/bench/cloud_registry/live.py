"""D, E, F, R: records that come as they are made; how late their rows are, and what trouble does to that.

Every record changes a row of its own that is complete before, once: the commit time of the row is the record's.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import psycopg
from confluent_kafka import Producer
from msgspec import Struct

from tests.bench.cloud_registry.backlog import Meter, wrong_rows
from tests.bench.cloud_registry.contenders import Contender, wait_for
from tests.bench.cloud_registry.fleet import Fleet, at
from tests.bench.cloud_registry.servers import Servers

_SEED: Final = 20251126
_WARM: Final = 1200
_TICK_S: Final = 0.01
_LATE_S: Final = 0.25
"""A latency above it is not the normal one."""
_FIRST_S: Final = 5.0
"""Not judged: a JVM gets warm, connections are made."""

_COUNT_WRITES: Final = """
CREATE TABLE bench_writes (session uuid NOT NULL, rev bigint NOT NULL);
CREATE FUNCTION bench_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO bench_writes VALUES (NEW.{session}, NEW.rev); RETURN NULL; END $$;
CREATE TRIGGER bench_count AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION bench_count();
"""

Act = Callable[[Servers], None]


class Plan(Struct, frozen=True):
    """How many records in each tick of 10 ms, and what happens when."""

    ticks: Sequence[int]
    acts: Sequence[tuple[float, Act]] = ()
    burst: tuple[float, float] | None = None
    back_s: float = 0.0
    """When the trouble is over, as planned."""


def plan(letter: str, steady_s: float) -> Plan:
    if letter == "D":
        return Plan([9] * round((_FIRST_S + steady_s) / _TICK_S))
    if letter == "E":
        return Plan([1] * 500 + [301] * 100 + [1] * 600, burst=(5.0, 6.0))
    if letter == "F":
        return Plan([9] * 2800, [(8.0, Servers.freeze_postgres), (18.0, Servers.thaw_postgres)])
    assert letter == "R"
    return Plan([9] * 2200, [(8.0, Servers.kill_postgres), (11.0, Servers.restart_postgres)])


class Live(Struct, kw_only=True):
    """One contender under one plan."""

    name: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_percent: dict[str, float]
    """Of one core over the judged time, by process."""
    commits_per_s: float
    pss_before_mib: float
    pss_peak_mib: float
    drain_s: float
    """From the first record of the burst to the commit of its last."""
    recover_s: float
    """From the database's return to the last commit that was later than normal."""
    dead_letters: int
    wrong: int
    written_again: int
    foreign_cores: float

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {percent:.1f}" for part, percent in self.cpu_percent.items())
        return (
            f"{self.name}: p50 {self.p50_ms:.1f} p99 {self.p99_ms:.1f} max {self.max_ms:.0f} ms; % of a core: {parts};"
            f" {self.commits_per_s:.0f} commits/s; {self.pss_before_mib:.0f} -> {self.pss_peak_mib:.0f} MiB;"
            f" {self.dead_letters} dead, {self.wrong} wrong, {self.written_again} again;"
            f" others {self.foreign_cores:.2f} cores"
            + (f"; burst {self.drain_s:.2f} s" if self.drain_s else "")
            + (f"; normal again after {self.recover_s:.2f} s" if self.recover_s else "")
        )


class _Load:
    """What is sent, made before: the first ``_WARM`` records are new sessions, the others change a row each."""

    def __init__(self, kind: type[Contender], letter: str, steady_s: float) -> None:
        self.plan = plan(letter, steady_s)
        self.records = sum(self.plan.ticks)
        self.fleet = Fleet(self.records + _WARM, _SEED + ord(letter))
        self.revs = [2] * self.records + [1] * _WARM
        when = at(time.time())
        self.values = [kind.format(self.fleet, n, rev, when) for n, rev in enumerate(self.revs)]
        self.sent_s = [0.0] * self.records


def run(servers: Servers, kind: type[Contender], letter: str, *, steady_s: float) -> Live:
    """Blocks for the plan's time (D: ``steady_s``) and what it takes to become ready.

    Raises RuntimeError if the contender does not keep up.
    """
    load = _Load(kind, letter, steady_s)
    topic = servers.create_topic(f"{letter}-{kind.name}-{time.time_ns()}")
    producer = Producer(
        {"bootstrap.servers": servers.bootstrap, "linger.ms": 0, "log_level": 2, "enable.idempotence": True}
    )
    with kind(servers, topic) as contender:
        contender.load_rows(load.fleet, load.records)
        with contextlib.closing(psycopg.connect(contender.dsn, autocommit=True)) as connection:
            if load.plan.acts:
                sql = _COUNT_WRITES.format(table=contender.tables[0], session=contender.session_column)
                connection.execute(sql.encode())
            contender.start()
            _warm_up(contender, connection, producer, load)
        return _play(contender, producer, load)


def _send(producer: Producer, contender: Contender, load: _Load, n: int) -> None:
    producer.produce(contender.topic, load.values[n], load.fleet.keys[n], load.fleet.partitions[n])


def _warm_up(contender: Contender, connection: psycopg.Connection[Any], producer: Producer, load: _Load) -> None:
    for n in range(load.records, load.records + _WARM):
        _send(producer, contender, load, n)
    producer.flush(20)
    _wait(contender, lambda: contender.progress(connection) >= load.records + _WARM, 60)
    time.sleep(2.0)  # connections, caches and commits settle
    contender.pss_peak_mib = 0.0
    wait_for(lambda: contender.pss_peak_mib > 0, 5)


def _play(contender: Contender, producer: Producer, load: _Load) -> Live:
    servers, acts = contender.servers, list(load.plan.acts)
    before_mib = contender.pss_peak_mib
    acting: list[Future[None]] = []
    over_s = 0.0

    def act(what: Act) -> None:
        nonlocal over_s
        what(servers)
        over_s = time.time()

    sent = itertools.count()
    begun_s = time.time()
    meter: Meter | None = None
    used: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for tick, count in enumerate(load.plan.ticks):
            at_s = tick * _TICK_S
            while acts and at_s >= acts[0][0]:
                acting.append(servers.hands.submit(act, acts.pop(0)[1]))
            time.sleep(max(0.0, begun_s + at_s - time.time()))
            if meter is None and at_s >= _FIRST_S and not load.plan.acts:
                own = stack.enter_context(contextlib.closing(psycopg.connect(contender.dsn, autocommit=True)))
                meter = Meter(contender, own)
            for _ in range(count):
                n = next(sent)
                load.sent_s[n] = time.time()
                _send(producer, contender, load, n)
            producer.poll(0)
        if meter is not None:
            used = meter.since()
    producer.flush(20)
    for done in acting:
        done.result()
    with contextlib.closing(psycopg.connect(contender.dsn, autocommit=True)) as connection:
        wanted = 2 * load.records + _WARM
        _wait(contender, lambda: contender.progress(connection) >= wanted, 60)
        return _judged(contender, connection, load, begun_s, over_s, used, before_mib)


def _judged(
    contender: Contender,
    connection: psycopg.Connection[Any],
    load: _Load,
    begun_s: float,
    over_s: float,
    used: dict[str, float],
    before_mib: float,
) -> Live:
    commits = {session: commit_s for session, _, commit_s in connection.execute(contender.commits_sql)}
    pairs = [(sent_s, commits[load.fleet.sessions[n]]) for n, sent_s in enumerate(load.sent_s)]
    delays = sorted(commit_s - sent_s for sent_s, commit_s in pairs if sent_s >= begun_s + _FIRST_S)
    burst = load.plan.burst
    drain_s = recover_s = 0.0
    if burst is not None:
        first_s, last_s = begun_s + burst[0], begun_s + burst[1]
        drain_s = max(commit_s for sent_s, commit_s in pairs if first_s <= sent_s <= last_s) - first_s
    if over_s:
        late = [commit_s for sent_s, commit_s in pairs if commit_s - sent_s > _LATE_S and commit_s > over_s]
        recover_s = max(late, default=over_s) - over_s
    again = 0
    if load.plan.acts:
        asked = "SELECT count(*) - count(DISTINCT (session, rev)) FROM bench_writes"
        again = int(connection.execute(asked).fetchone()[0])  # type: ignore[index]
    seconds = used.get("time", 1.0)
    cpu = {part[4:]: spent / seconds * 100 for part, spent in used.items() if part.startswith("cpu.")}
    ours_s = sum(value for name, value in used.items() if name.startswith("cpu."))
    return Live(
        name=contender.name,
        p50_ms=delays[len(delays) // 2] * 1e3,
        p99_ms=delays[int(len(delays) * 0.99)] * 1e3,
        max_ms=delays[-1] * 1e3,
        cpu_percent=cpu,
        commits_per_s=used.get("commits", 0.0) / seconds,
        pss_before_mib=before_mib,
        pss_peak_mib=contender.pss_peak_mib,
        drain_s=drain_s,
        recover_s=recover_s,
        dead_letters=contender.servers.records_in(contender.dead),
        wrong=wrong_rows(contender, connection, load.fleet, load.revs),
        written_again=again,
        foreign_cores=max(0.0, (used.get("busy", 0.0) - ours_s) / seconds),
    )


def _wait(contender: Contender, condition: Callable[[], bool], timeout_s: float) -> None:
    if not wait_for(lambda: not contender.alive() or condition(), timeout_s, 0.2) or not contender.alive():
        raise RuntimeError(f"{contender.name}: not in time\n{(contender.folder / 'log').read_text()[-2000:]}")
