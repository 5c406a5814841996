"""Lifecycle, health, metrics, backoff, lock: the small things every daemon stands on."""

import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.runtime import health, metrics
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.config import ConfigError
from dmpd.runtime.database import DatabaseUnreachableError, connect, describe
from dmpd.runtime.flock import AlreadyRunningError, InstanceLock
from dmpd.runtime.health import HealthServer
from dmpd.runtime.kafka import KafkaUnreachableError, ensure_reachable
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.log import JsonFormatter, TextFormatter, log_fields
from dmpd.runtime.mqtt import MqttRefusedError, MqttUnreachableError
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=40), st.floats(0.01, 5), st.floats(1, 50))
def test_backoff_stays_within_its_bounds_and_starts_again_after_reset(draws, first_s, factor):
    randoms = iter(draws)
    backoff = Backoff(first_s, first_s * factor, random=lambda: next(randoms))
    for attempt in range(len(draws)):
        full_s = min(first_s * 2**attempt, first_s * factor)
        assert full_s * 0.5 <= backoff.next_s() <= full_s
    assert backoff.attempts == len(draws)
    backoff.reset()
    assert backoff.attempts == 0


def test_lifecycle_signals_only_set_flags_and_wake_the_loop():
    lifecycle = Lifecycle("test")
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        lifecycle.install_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        assert lifecycle.stop_requested
        assert not lifecycle.second_stop
        assert os.read(lifecycle.wakeup_fd, 16)
        os.kill(os.getpid(), signal.SIGTERM)
        assert lifecycle.second_stop
        lifecycle.clear_wakeup()
        with pytest.raises(BlockingIOError):
            os.read(lifecycle.wakeup_fd, 16)
    finally:
        write_fd = signal.set_wakeup_fd(-1)
        os.close(write_fd)
        os.close(lifecycle.wakeup_fd)
        for number, handler in former.items():
            signal.signal(number, handler)


def test_draining_is_never_left_for_ready():
    lifecycle = Lifecycle("test")
    lifecycle.set_state("ready")
    lifecycle.set_state("draining")
    lifecycle.set_state("ready")
    lifecycle.set_state("degraded", "late news")
    assert (lifecycle.state, lifecycle.reason) == ("draining", "")
    lifecycle.set_state("stopped")
    assert lifecycle.state == "stopped"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_health_tells_state_metrics_and_status(tmp_path, kind):
    lifecycle = Lifecycle("test")
    bind = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path / 'h.sock'}"
    server = HealthServer(bind, lifecycle, lambda: {"rows": 3})
    server.start()
    try:
        assert health.fetch(server.address, "/readyz") == (503, b"starting\n")
        lifecycle.set_state("degraded", "no broker")
        assert health.fetch(server.address, "/readyz") == (200, b"degraded: no broker\n")
        assert health.fetch(server.address, "/healthz")[0] == 200
        status = json.loads(health.fetch(server.address, "/status")[1])
        assert datetime.fromisoformat(status.pop("started_at")) <= datetime.now(UTC)
        assert status == {
            "program": "test",
            "pid": os.getpid(),
            "state": "degraded",
            "reason": "no broker",
            "rows": 3,
        }
        assert health.fetch(server.address, "/nothing")[0] == 404
        lifecycle.set_state("stopped")
        assert health.fetch(server.address, "/healthz")[0] == 503
    finally:
        server.stop()
    with pytest.raises(OSError, match=r"."):
        health.fetch(server.address, "/healthz")


def test_health_survives_a_status_that_raises(tmp_path, caplog):
    def broken():
        raise RuntimeError("no status today")

    server = HealthServer(f"unix:{tmp_path / 'h.sock'}", Lifecycle("test"), broken)
    server.start()
    try:
        assert health.fetch(server.address, "/status")[0] == 500
        assert health.fetch(server.address, "/healthz")[0] == 200
    finally:
        server.stop()
    assert "no status today" in caplog.text


def test_health_server_takes_over_the_socket_of_a_dead_one(tmp_path):
    path = tmp_path / "h.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    server = HealthServer(f"unix:{path}", Lifecycle("test"), dict)
    server.start()
    assert health.fetch(server.address, "/healthz")[0] == 200
    server.stop()
    assert not path.exists()


def test_metric_declared_twice_is_refused_and_shows_up_in_both_forms():
    name = "dmpd_test_things_total"
    things = metrics.counter(name, "things seen by the test")
    things.inc(2)
    assert b"dmpd_test_things_total 2.0" in metrics.render()
    assert metrics.Declaration(name, "counter", "things", "things seen by the test", ()) in metrics.declared()
    with pytest.raises(AssertionError, match="twice"):
        metrics.counter(name, "again")


def test_lock_is_held_once_and_freed_by_death(tmp_path):
    path = tmp_path / "lock"
    code = f"""
import os, time
from pathlib import Path
from dmpd.runtime.flock import InstanceLock
lock = InstanceLock(Path({str(path)!r}))
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(AlreadyRunningError, match=str(holder.pid)):
                InstanceLock(path)
        finally:
            holder.kill()
    lock = InstanceLock(path)
    lock.release()


def test_watchdog_ends_a_process_that_stands_still():
    code = """
import time
from dmpd.runtime.watchdog import Watchdog
watchdog = Watchdog(stall_s=0.3)
watchdog.start()
watchdog.beat()
time.sleep(60)
"""
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 70
    assert "stood still" in done.stderr
    assert "line 7 in <module>" in done.stderr
    assert time.monotonic() - started_s < 20


def test_watchdog_leaves_a_beating_process_alone():
    code = """
import time
from dmpd.runtime.watchdog import Watchdog
watchdog = Watchdog(stall_s=0.3)
watchdog.start()
end = time.monotonic() + 1.2
while time.monotonic() < end:
    watchdog.beat()
    time.sleep(0.01)
watchdog.stop()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(["a", "b"]),
        KafkaUnreachableError("x"),
        MqttUnreachableError("x"),
        MqttRefusedError(0x87, "no"),
        DatabaseUnreachableError("x"),
        AlreadyRunningError("x"),
    ],
)
def test_exceptions_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_unreachable_servers_are_named_without_secrets(tmp_path, unused_port):
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    settings = DatabaseSettings(
        conninfo=f"host=127.0.0.1 port={unused_port} dbname=dmpd user=x", password_file=str(secret), connect_timeout_s=2
    )
    assert describe(settings) == f"database dmpd at 127.0.0.1:{unused_port}"
    with pytest.raises(DatabaseUnreachableError) as caught:
        connect(settings, application="test")
    assert "dmpd at 127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(KafkaUnreachableError, match=str(unused_port)):
        ensure_reachable(KafkaSettings(bootstrap_servers=f"127.0.0.1:{unused_port}"), "test", 1.0)


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_logs_carry_fields_as_text_and_as_json():
    record = logging.LogRecord("dmpd.x", logging.WARNING, "f", 1, "late %d", (3,), None)
    record.__dict__.update(log_fields(rae="R1", seq=7))
    text = TextFormatter().format(record)
    assert text.endswith("Z warning dmpd.x: late 3 rae=R1 seq=7")
    line = json.loads(JsonFormatter("bridge").format(record))
    assert (line["message"], line["rae"], line["seq"], line["program"]) == ("late 3", "R1", 7, "bridge")
