"""``dmpd canary`` as a daemon: runs begin in time, an alarm is no readiness, a stop is quick."""

import asyncio
import json
import subprocess
import sys
import textwrap

import pytest

from dmpd.canary import daemon, store
from dmpd.canary.settings import CanarySettings
from dmpd.cli.canary import once_command
from dmpd.runtime.database import DatabaseUnreachableError
from dmpd.runtime.health import fetch
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import DatabaseSettings
from tests.support.aio import async_test
from tests.support.canary_reports import new_run
from tests.support.platform import BIN, until
from tests.support.rows import migrated

pytestmark = pytest.mark.services
RUN = "00000000-0000-0000-0000-00000000000a"


@pytest.fixture
def connection(postgres):
    with migrated(postgres) as found:
        yield found


class Daemon:
    """The daemon as a process, whose run is a script of the test."""

    def __init__(self, folder, postgres, *, script, **settings):
        self.bind = f"unix:{folder}/canary.sock"
        given = {"health_bind": self.bind} | settings
        code = textwrap.dedent(f"""
            import sys
            from dmpd.canary import daemon
            from dmpd.canary.settings import CanarySettings
            from dmpd.runtime import daemon_process
            from dmpd.runtime.settings import DatabaseSettings
            run = lambda lifecycle: daemon.run(
                CanarySettings(**{given!r}), database=DatabaseSettings(conninfo={postgres.conninfo!r}),
                command=[sys.executable, "-c", {script!r}], lifecycle=lifecycle)
            sys.exit(daemon_process.serve("canary", run, check_config=lambda: None))
        """)
        self.process = subprocess.Popen([sys.executable, "-c", code])

    def __enter__(self):
        until(self._answers, "the daemon answers")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _answers(self):
        assert self.process.poll() is None
        try:
            return self.ready()[0]
        except OSError:
            return False

    def ready(self):
        code, body = fetch(self.bind, "/readyz")
        return code, body.decode()

    def status(self):
        return json.loads(fetch(self.bind, "/status")[1])

    def metric(self, name):
        lines = fetch(self.bind, "/metrics")[1].decode().splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]


def insert(connection, *, started_age_s, ended_age_s):
    store.begin(connection, new_run(RUN))
    connection.execute(
        "UPDATE canary_run SET started_at = now() - %s * INTERVAL '1 second', took_s = 5, verdict = 'fail',"
        " ended_at = now() - %s * INTERVAL '1 second', p99s = '{\"row\": 2.5}'",
        (started_age_s, ended_age_s),
    )


def test_a_first_run_begins_at_once_and_is_told_of(tmp_path, postgres, connection):
    script = 'print(\'{"verdict": "pass", "reasons": []}\')'
    with Daemon(tmp_path, postgres, script=script, jitter=0.0, alarm_s=12_600) as running:
        until(lambda: running.metric('dmpd_canary_runs_total{verdict="pass"}') == [1.0], "one run")
        assert running.ready()[0] == 200
        until(lambda: running.status()["next_run_s"] is not None, "the next one has its time")


def test_no_end_for_too_long_is_no_readiness_and_a_stop_ends_the_run(tmp_path, postgres, connection):
    insert(connection, started_age_s=20_000, ended_age_s=19_000)
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(69)); print('on', flush=True); time.sleep(600)"
    )
    with Daemon(tmp_path, postgres, script=script, jitter=0.0) as running:
        until(lambda: "alarm: " in running.ready()[1], "the alarm")
        code, said = running.ready()
        assert (code, "alarm: no canary run ended in the last 5.3 h" in said) == (503, True), said
        assert running.metric('dmpd_canary_verdict{verdict="fail"}') == [1.0]
        assert running.metric('dmpd_canary_p99_seconds{what="row"}') == [2.5]
        until(lambda: running.status()["running"], "the run that is overdue")
        running.process.terminate()
        assert running.process.wait(60) == 0


def test_a_run_that_hangs_does_not_keep_the_alarm_from_being_raised(tmp_path, postgres, connection):
    insert(connection, started_age_s=20_000, ended_age_s=12_594)
    with Daemon(tmp_path, postgres, script="import time; time.sleep(600)", jitter=0.0) as running:
        until(lambda: running.status()["running"], "the run that hangs")
        until(lambda: "alarm: " in running.ready()[1], "the alarm")
        assert running.status()["running"]
        assert running.metric("dmpd_canary_ended_age_seconds")[0] > 12_600


def test_a_database_that_is_away_does_not_keep_the_alarm_from_being_raised(tmp_path, postgres, connection):
    insert(connection, started_age_s=100, ended_age_s=12_592)
    with Daemon(tmp_path, postgres, script="raise SystemExit(70)", jitter=0.0) as running:
        until(lambda: running.status()["last"] is not None, "a look")
        connection.execute("ALTER TABLE canary_run RENAME TO away")
        try:
            until(lambda: "alarm: " in running.ready()[1], "the alarm")
            assert running.metric("dmpd_canary_ended_age_seconds")[0] > 12_600
        finally:
            connection.execute("ALTER TABLE away RENAME TO canary_run")


def test_disabled_it_runs_nothing_and_a_recent_run_keeps_the_next_waiting(tmp_path, postgres, connection):
    store.set_enabled(connection, enabled=False, who="me", why="tests")
    with Daemon(tmp_path, postgres, script="raise SystemExit(70)", jitter=0.0) as running:
        until(lambda: running.status()["next_run_s"] is not None, "a look")
        assert running.status()["enabled"] is False
        insert(connection, started_age_s=100, ended_age_s=50)
        store.set_enabled(connection, enabled=True, who="me", why="")
        until(lambda: running.status()["enabled"], "enabled")
        assert 10_600 < running.status()["next_run_s"] < 10_800
        assert running.metric("dmpd_canary_runs_total{") == []


@async_test
async def test_a_run_that_cannot_begin_is_tried_again_an_interval_later_and_not_at_each_look(monkeypatch):
    """It ends before it has a line in the table."""
    one = daemon._Daemon(
        CanarySettings(jitter=0.0), database=DatabaseSettings(), command=["false"], lifecycle=Lifecycle("canary")
    )
    ended = []
    monkeypatch.setattr(one, "_look", lambda: None)
    monkeypatch.setattr(one, "_tell", lambda code, _: ended.append(code))
    for _ in range(3):
        await one._turn(asyncio.get_running_loop().create_future())
    assert ended == [1]
    assert 10_000 < one._due_in_s <= 10_800


@async_test
async def test_without_its_database_it_is_degraded_and_an_alarm_says_who_disabled_it(monkeypatch):
    def gone():
        raise DatabaseUnreachableError("connection refused\n")

    lifecycle = Lifecycle("canary")
    one = daemon._Daemon(CanarySettings(), database=DatabaseSettings(), command=["false"], lifecycle=lifecycle)
    monkeypatch.setattr(one, "_look", gone)
    await one._turn(asyncio.get_running_loop().create_future())
    assert (lifecycle.state, lifecycle.reason) == ("degraded", "the database does not answer: connection refused")
    assert one._alarm() is None
    one._state = store.State(enabled=False, changed_by="me", why="tests")
    one._began_s -= 20_000
    assert one._alarm().endswith("; disabled by me: tests")


def test_what_the_daemon_starts_is_a_run_of_this_dmpd(tmp_path):
    """With no configuration there it says so and exits 78, as ``dmpd canary --once`` does by hand."""
    command = once_command(str(BIN / "dmpd"), tmp_path / "absent.yaml")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "absent.yaml: No such file" in done.stderr


def test_the_command_line_says_what_is_wrong(tmp_path):
    config = tmp_path / "dmpd.yaml"
    config.write_text("canary:\n  thresholds: {late_after_s: 1}\n")
    command = [str(BIN / "dmpd"), "canary", "--once", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert f"{config}:2 canary.thresholds.late_after_s: expected at least end_to_end_p99_max_s (15)" in done.stderr
    config.write_text("{}\n")
    done = subprocess.run(
        [*command[:2], "--ramp", "herd", *command[3:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 64
    assert "--ramp is for --once" in done.stderr
