"""Trouble with the database, one kind after the other, under one Cloud Registry that is never restarted: nothing lost,
nobody accused, memory bounded, the group kept, and normal again as soon as the database is.

Timers are shortened; each fault lasts until every worker says that it waits, and the longest ones beyond every timer.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from importlib.resources import files
from pathlib import Path

import pytest
from confluent_kafka import Producer

from dmpd.cloud_registry import migrate
from dmpd.lab.postgresql import SUPERUSER, PostgreSQL
from dmpd.lab.server import give_to
from dmpd.lab.server_process import ServerProcess
from dmpd.runtime import exit_codes
from dmpd.runtime.database import connect
from dmpd.runtime.settings import DatabaseSettings
from tests.support.cloud_daemon import CloudDaemon
from tests.support.cloud_feed import Feed
from tests.support.services import public_folder, start
from tests.support.stream_daemon import wait_for

pytestmark = [pytest.mark.services, pytest.mark.slow]

PARTITIONS = 4
ROLE = "dmpd_registry"
STUCK_S = 12.0
BURST_REVS = 45
"""3,600 messages of 350 bytes: more than the rings hold."""
GROWTH_MAX_BYTES = 40 << 20
TABLES = ("device_session", "device_interface", "device_attribute", "device_event", "rae", "registry_mark")


class Site:
    """A cluster, a Cloud Registry on it as the role with least privilege, and a feed."""

    def __init__(self, folder, kafka, process, standby):
        self.process = process
        self.standby = standby
        hosts = f"{process.server.socket_folder},{standby.server.socket_folder}"
        conninfo = f"host={hosts} dbname=registry target_session_attrs=read-write"
        process.server.create_database("registry")
        self.admin_settings = DatabaseSettings(conninfo=f"{conninfo} user={SUPERUSER}")
        with self.admin() as connection:
            migrate.migrate(connection)
            connection.execute(f"CREATE ROLE {ROLE} LOGIN")
            connection.execute("CREATE ROLE dmpd_read")
            script = files("dmpd.cloud_registry").joinpath("schema", "roles.sql").read_text()
            for statement in migrate.statements(script):
                connection.execute(statement)
        self.settings = DatabaseSettings(conninfo=f"{conninfo} user={ROLE}")
        self.daemon = CloudDaemon(
            folder,
            kafka,
            self.settings,
            partitions=PARTITIONS,
            timeouts={"statement_timeout_s": 3.0, "connect_timeout_s": 2},
            registry={"retry_max_s": 0.3, "halt_retry_s": 1.0, "transaction_sessions_max": 2},
            ring_bytes=256 * 1024,
            max_record_bytes=64 * 1024,
            stuck_timeout_s=STUCK_S,
            sink_silence_timeout_s=STUCK_S + 2,
            fetch_silence_timeout_s=30.0,
            nothing_moves_timeout_s=61.0,
            dead_letters_per_source_per_minute=100,
        )
        done = self.daemon.dmpd("migrate", "--only", "kafka")
        assert done.returncode == exit_codes.OK, done.stderr
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5})
        self.feed = Feed(producer, self.daemon.topics["info"], partitions=PARTITIONS)

    @contextlib.contextmanager
    def admin(self):
        with contextlib.closing(connect(self.admin_settings, application="admin")) as connection:
            connection.autocommit = True
            yield connection

    def log(self):
        return self.daemon.log_path.read_text()[-6000:]

    def end_sessions(self, connection):
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (ROLE,))

    def start_standby(self):
        one, two = self.process.server, self.standby.server
        two.folder.mkdir()
        give_to(two.folder, two.user)
        copy = [
            "pg_basebackup",
            "-h",
            one.socket_folder,
            "-U",
            SUPERUSER,
            "-D",
            two.folder / "data",
            "-R",
            "-c",
            "fast",
        ]
        uid, gid = pwd.getpwnam(two.user)[2:4]
        as_user = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(copy, check=True, cwd="/", timeout=60, **as_user)
        two.prepare()
        self.standby.start()
        with self.admin() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_for(lambda: connection.execute(state).fetchone() == (1,), self.log)

    def promote(self):
        own = self.standby.server.conninfo("registry")
        with contextlib.closing(connect(DatabaseSettings(conninfo=own), application="admin")) as connection:
            connection.autocommit = True
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        self.process, self.standby = self.standby, None

    def backends(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def wait_settled(self):
        with self.admin() as connection:

            def revs():
                return connection.execute("SELECT coalesce(sum(rev), 0) FROM device_session").fetchone()[0]

            wait_for(lambda: revs() == self.feed.revs, self.log, timeout_s=90)
            self.feed.assert_stored(connection)
        wait_for(lambda: self.daemon.status.get("lag") == 0, self.log, timeout_s=60)

    def partitions(self):
        return self.daemon.status["partitions"].values()

    def wait_for_waiting(self, words):
        """Until every worker says that it waits for its sink, and why."""
        wait_for(
            lambda: (
                len(self.partitions()) == PARTITIONS
                and all(one["state"] in ("waiting", "halted") for one in self.partitions())
                and any(word in one["waits_for"] for one in self.partitions() for word in words)
            ),
            lambda: (self.log(), self.daemon.status),
            timeout_s=60,
        )

    def standing(self):
        """What no fault of the database may change."""
        return {
            "workers": sorted(self.daemon.worker_pids()),
            "restarts": [one["restarts"] for one in self.partitions()],
            "dead letters": [one["dead_letters"] for one in self.partitions()],
        } | {
            name: self.daemon.counted(f"dmpd_stream_{name}_total")
            for name in ("rebalances", "resets", "stuck_workers", "condemned_records", "client_rebuilds")
        }


@pytest.fixture(scope="module")
def site(kafka, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(public_folder())
        process = stack.enter_context(start(PostgreSQL(folder / "one", durable=True)))
        standby = ServerProcess(PostgreSQL(folder / "two", durable=True))
        stack.callback(standby.stop)
        site = Site(tmp_path_factory.mktemp("faults"), kafka, process, standby)
        with site.daemon:
            site.feed.burst(2)
            site.wait_settled()
            yield site
            assert site.daemon.process.poll() is None, site.log()
            assert site.daemon.drain() == exit_codes.OK, site.log()


@contextlib.contextmanager
def trouble(site, words, *, hold_s=0.0):
    """The body makes the trouble and yields; then come more messages than rings hold, and what must not change."""
    before, memory = site.standing(), site.daemon.memory_bytes()
    with contextlib.ExitStack() as stack:
        yield stack
        site.feed.burst(BURST_REVS)
        site.wait_for_waiting(words)
        wait_for(lambda: all(one["paused"] for one in site.partitions()), lambda: ("rings not full", site.log()))
        until_s = time.monotonic() + hold_s
        wait_for(lambda: time.monotonic() > until_s, site.log, timeout_s=hold_s + 60)
        assert site.daemon.memory_bytes() - memory < GROWTH_MAX_BYTES
        assert site.standing() == before
    site.wait_settled()
    assert site.standing() == before
    site.feed.burst(1)
    site.wait_settled()


def test_stopped_for_longer_than_every_timer(site):
    with trouble(site, ["Connection refused", "No such file"], hold_s=2 * STUCK_S) as afterwards:
        site.process.stop()
        afterwards.callback(site.process.start)


def test_killed(site):
    with trouble(site, ["Connection refused", "No such file"]) as afterwards:
        site.process.kill()
        afterwards.callback(site.process.start)


def test_frozen_for_longer_than_every_timer(site):
    """It takes connections and answers nothing: only the client's own clock ends a call."""
    with trouble(site, ["timeout", "does not answer"], hold_s=2 * STUCK_S) as afterwards:
        frozen = site.backends()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        afterwards.callback(lambda: [os.kill(pid, signal.SIGCONT) for pid in frozen])


def test_too_slow(site):
    """Every statement is cancelled for its time: batches are taken apart, and no record is given up."""
    with trouble(site, ["57014"], hold_s=2 * STUCK_S) as afterwards:
        locker = afterwards.enter_context(site.admin())
        locker.execute("BEGIN")
        locker.execute("SET statement_timeout = 0")
        locker.execute("SET idle_in_transaction_session_timeout = 0")
        locker.execute("LOCK TABLE device_session IN ACCESS EXCLUSIVE MODE")


def test_read_only(site):
    with trouble(site, ["25006", "read-only", "No such file"]) as afterwards:  # the words of the last host tried
        admin = afterwards.enter_context(site.admin())
        admin.execute("ALTER DATABASE registry SET default_transaction_read_only = on")
        afterwards.callback(admin.execute, "ALTER DATABASE registry RESET default_transaction_read_only")
        site.end_sessions(admin)


def test_out_of_connections(site):
    with trouble(site, ["too many connections"]) as afterwards:
        admin = afterwards.enter_context(site.admin())
        admin.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
        afterwards.callback(admin.execute, f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
        site.end_sessions(admin)


def test_failing_over_to_a_standby(site):
    """The server dies for good; a synchronous standby that was made of it takes over."""
    if site.standby is None:
        pytest.fail("it was done already, and the first server is gone")
    with trouble(site, ["refused", "No such file", "read-only"]) as afterwards:
        site.start_standby()
        site.process.kill()
        afterwards.callback(site.promote)


def test_a_missing_privilege_halts_until_it_is_given(site):
    with trouble(site, ["42501"], hold_s=STUCK_S) as afterwards:
        admin = afterwards.enter_context(site.admin())
        admin.execute(f"REVOKE UPDATE ON device_session FROM {ROLE}")
        afterwards.callback(admin.execute, f"GRANT UPDATE ON device_session TO {ROLE}")
        afterwards.callback(_assert_halted, site)


def _assert_halted(site):
    assert {one["state"] for one in site.partitions()} == {"halted"}
    assert site.daemon.status["state"] == "degraded"
    assert "permission denied for table device_session" in site.daemon.status["reason"]
    assert site.daemon.counted("dmpd_stream_halted_partitions") == PARTITIONS


def test_restored_from_an_old_backup(site):
    """Rows go back behind what Kafka has confirmed: they are stale until their RAEs' checkpoints come, never wrong."""
    with site.admin() as admin:

        def mark(schema):
            return admin.execute(f"SELECT coalesce(max(mark), 0) FROM {schema}.registry_mark").fetchone()[0]

        admin.execute("CREATE SCHEMA backup")
        for table in TABLES:
            admin.execute(f"CREATE TABLE backup.{table} AS TABLE {table}")
        site.feed.burst(3)
        site.wait_settled()
        wait_for(lambda: mark("public") > mark("backup"), site.log, timeout_s=60)
        before = site.standing()
        with admin.transaction():
            for table in TABLES:
                admin.execute(f"TRUNCATE {table}")
                admin.execute(f"INSERT INTO {table} SELECT * FROM backup.{table}")
        wait_for(lambda: site.daemon.counted("dmpd_registry_database_rewinds_total") == 1, site.log, timeout_s=60)
        site.feed.burst(1)

        def stale():
            return admin.execute("SELECT count(*) FROM device_session WHERE stale").fetchone()[0]

        wait_for(lambda: stale() == len(site.feed.expected), site.log, timeout_s=60)
        site.feed.checkpoints()
        wait_for(lambda: stale() == 0, site.log, timeout_s=60)
        site.wait_settled()
        assert site.standing() == before
        admin.execute("DROP SCHEMA backup CASCADE")


def test_a_flood_of_garbage_from_one_rae_stays_within_its_limit(site):

    def letters():
        return sum(one["dead_letters"] for one in site.partitions())

    before = letters()
    dropped = site.daemon.counted("dmpd_stream_dead_letters_dropped_total")
    site.feed.garbage("R-evil", 3000)
    site.feed.burst(2)
    site.wait_settled()
    wait_for(lambda: letters() - before == 3000, site.log)
    assert site.daemon.counted("dmpd_stream_dead_letters_dropped_total") - dropped >= 3000 - 2 * (100 + 3)
    assert {one["state"] for one in site.partitions()} == {"running"}
    with site.admin() as admin:
        assert admin.execute("SELECT count(*) FROM device_session WHERE rae = 'R-evil'").fetchone() == (0,)
