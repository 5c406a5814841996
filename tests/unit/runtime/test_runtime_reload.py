"""HUP and POST /reload: a bad file changes nothing, a good one begins anew, a stop meanwhile stays a stop."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys

import pytest

from dmpd.runtime import health
from dmpd.runtime.config import ConfigError
from dmpd.runtime.errors import BindError
from dmpd.runtime.health import HealthServer
from dmpd.runtime.lifecycle import SIGNALS, Lifecycle
from tests.support.stream_daemon import wait_for


class Config:
    """What ``check_config`` says: nothing, or its problems."""

    def __init__(self):
        self.problems = []
        self.checks = 0

    def check(self):
        self.checks += 1
        if self.problems:
            raise ConfigError(self.problems)


@pytest.fixture
def config():
    return Config()


@pytest.fixture
def lifecycle(config):
    former = {number: signal.getsignal(number) for number in SIGNALS}
    lifecycle = Lifecycle("test", check_config=config.check)
    lifecycle.install_signals()
    yield lifecycle
    os.close(signal.set_wakeup_fd(-1))
    os.close(lifecycle.wakeup_fd)
    for number, handler in former.items():
        signal.signal(number, handler)


def hup():
    os.kill(os.getpid(), signal.SIGHUP)


def test_hup_with_a_good_file_asks_for_a_drain_and_a_new_beginning(lifecycle, config):
    hup()
    wait_for(lambda: lifecycle.restart_requested, "the reload is taken")
    assert (lifecycle.stop_requested, lifecycle.second_stop, lifecycle.stops, config.checks) == (True, False, 0, 1)
    assert select.select([lifecycle.wakeup_fd], [], [], 0)[0]


def test_hup_with_a_bad_file_says_why_and_the_next_one_is_heard(lifecycle, config, caplog):
    config.problems = ["dmpd.yaml:3 log.level: expected one of …"]
    hup()
    wait_for(lambda: "dmpd.yaml:3 log.level" in caplog.text, "the sentence")
    assert not lifecycle.stop_requested
    config.problems = []
    hup()
    wait_for(lambda: lifecycle.restart_requested, "the reload is taken")


def test_a_check_that_fails_otherwise_is_logged_and_the_next_hup_is_heard(lifecycle, config, caplog):
    config.problems = None
    lifecycle._check_config = lambda: 1 // 0
    hup()
    wait_for(lambda: "ZeroDivisionError" in caplog.text, "the trace")
    lifecycle._check_config = config.check
    hup()
    wait_for(lambda: lifecycle.restart_requested, "the reload is taken")


def test_a_term_after_hup_makes_it_a_plain_stop_and_is_not_the_second_one(lifecycle):
    lifecycle.reload()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (lifecycle.stop_requested, lifecycle.restart_requested, lifecycle.second_stop) == (True, False, False)
    os.kill(os.getpid(), signal.SIGTERM)
    assert lifecycle.second_stop


def test_a_hup_after_term_changes_nothing(lifecycle, config):
    os.kill(os.getpid(), signal.SIGTERM)
    lifecycle.reload()
    assert (config.checks, lifecycle.restart_requested, lifecycle.second_stop) == (1, False, False)


def test_an_asyncio_daemon_wakes_too(config):
    async def serve():
        lifecycle = Lifecycle("test", check_config=config.check)
        lifecycle.install_async(asyncio.get_running_loop())
        hup()
        await asyncio.wait_for(lifecycle.wait_stop(), 30)
        return lifecycle.restart_requested

    assert asyncio.run(serve())


def test_signals_that_a_former_life_blocked_are_heard():
    """In a process of its own: the threads of this one would hear them first."""
    code = (
        "import asyncio, os, signal; from dmpd.runtime.lifecycle import SIGNALS, Lifecycle\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "async def serve():\n"
        "    lifecycle = Lifecycle('test', check_config=lambda: None)\n"
        "    lifecycle.install_async(asyncio.get_running_loop())\n"
        "    await lifecycle.wait_stop()\n"
        "    print(lifecycle.restart_requested, signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "asyncio.run(serve())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True set()\n"


def test_post_reload_says_the_problems_or_that_it_drains(tmp_path, lifecycle, config):
    server = HealthServer(f"unix:{tmp_path / 'h.sock'}", lifecycle, dict)
    server.start()
    try:
        config.problems = ["dmpd.yaml:1 a", "dmpd.yaml:2 b"]
        code, body = health.fetch(server.address, "/reload", method="POST")
        assert (code, json.loads(body)) == (422, {"error": "dmpd.yaml:1 a\ndmpd.yaml:2 b"})
        assert not lifecycle.stop_requested
        config.problems = []
        code, body = health.fetch(server.address, "/reload", method="POST")
        assert (code, json.loads(body)) == (202, {"said": "draining, then beginning anew"})
        assert lifecycle.restart_requested
    finally:
        server.stop()


def test_a_program_without_configuration_says_so():
    with pytest.raises(ConfigError, match="test has no configuration to reload"):
        Lifecycle("test").reload()


def test_a_living_daemons_socket_is_not_taken_and_a_dead_ones_is(tmp_path):
    bind = f"unix:{tmp_path / 'h.sock'}"
    first = HealthServer(bind, Lifecycle("test"), dict)
    first.start()
    with pytest.raises(BindError, match=rf"cannot listen at {bind}: .*held by process {os.getpid()}: one instance"):
        HealthServer(bind, Lifecycle("test"), dict)
    assert health.fetch(bind, "/healthz")[0] == 200
    first.stop()
    second = HealthServer(bind, Lifecycle("test"), dict)
    second.start()
    second.stop()
