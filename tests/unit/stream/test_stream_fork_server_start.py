"""A fork server for which the machine has no room is a failure that can be tried again, and leaves nothing."""

import subprocess
from pathlib import Path

import pytest

from dmpd.runtime.settings import LogSettings
from dmpd.stream import fork_server
from dmpd.stream.fork_server import ForkServer, ForkServerError, Hello
from dmpd.stream.settings import StreamSettings
from dmpd.stream.workers import Workers


def test_a_process_that_cannot_be_started_is_told_as_such(monkeypatch):
    def no_room(*_args, **_more):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_room)
    before = list(Path("/proc/self/fd").iterdir())
    server = ForkServer(Hello("os.path:join", b"", [], LogSettings(), "test"))
    with pytest.raises(ForkServerError, match="Resource temporarily unavailable"):
        server.start()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
    assert not server.is_alive()
    server.stop()


def test_it_is_tried_again_with_backoff(monkeypatch):
    tries = []

    def no_room(*_args, **_more):
        tries.append(1)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_room)
    settings = StreamSettings(worker_backoff_first_s=1.0)
    workers = Workers(ForkServer(Hello("os.path:join", b"", [], LogSettings(), "test")), settings, None)
    workers.tend([], 10.0)
    workers.tend([], 10.0)
    assert len(tries) == 1
    workers.tend([], 100.0)
    assert len(tries) == 2


def test_a_sandbox_that_forbids_a_scheduling_costs_no_worker(monkeypatch, caplog):
    def forbidden(*_):
        raise PermissionError("seccomp")

    monkeypatch.setattr(fork_server.os, "sched_setscheduler", forbidden)
    fork_server._interrupt_nobody()
    assert "seccomp" in caplog.text
