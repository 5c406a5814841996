"""Workers that die, as the parent sees it: how they ended, whom it accuses, who comes next. Without Kafka."""

import math
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from msgspec import structs

from dmpd.stream import fork_server as fork_server_module
from tests.support.stream_handlers import handled
from tests.support.stream_rig import SETTINGS, Rig, fork_server


@pytest.fixture
def rig(tmp_path):
    with fork_server(tmp_path) as server:
        rig = Rig(server)
        yield rig
        rig.end()


@pytest.mark.parametrize(
    ("value", "how"),
    [
        (b"raise", "exit status 70: handler failed: RuntimeError: as asked"),
        (b"leave", "exit status 70"),
        (b"exit 3", "exit status 3"),
        (b"SIGSEGV", "ended by SIGSEGV"),
        (b"SIGKILL", "killed by SIGKILL, from outside"),
    ],
)
def test_a_record_that_ends_its_worker_is_given_up_alone_with_how_it_ended(tmp_path, rig, value, how, caplog):
    rig.place([b"good"] * 30 + [value] + [b"good"] * 9)
    rig.tend_until_done()
    [(offset, headers)] = rig.dead_letters.items()
    assert (offset, headers["dmpd-reason"], headers["dmpd-by"]) == (30, b"poison", b"stream")
    assert headers["dmpd-detail"] == how.encode()
    assert f"died: {how}; the next one starts" in caplog.text
    assert handled(tmp_path, 0) == [n for n in range(40) if n != 30]
    assert rig.partition.restarts <= 6 + 3
    assert rig.partition.suspicion.width is None


def test_a_handler_that_raises_for_a_while_is_tried_again_and_holds_the_commit(tmp_path, rig):
    (tmp_path / "flaky").touch()
    rig.place([b"good"] * 5 + [b"flaky"] + [b"good"] * 4)
    rig.tend_until(lambda: rig.partition.suspicion.width == 1 and rig.partition.restarts >= 4)
    assert rig.partition.ledger.next_offset <= 5
    (tmp_path / "flaky").unlink()
    rig.tend_until_done()
    assert not rig.dead_letters
    assert handled(tmp_path, 0) == list(range(10))
    assert rig.partition.ledger.next_offset == 10


def test_deaths_while_it_waits_for_its_sink_accuse_nobody(tmp_path, rig):
    (tmp_path / "block").touch()
    rig.place([b"good"])
    for _ in range(6):
        rig.tend_until(lambda: rig.life is not None and rig.life.state == "waiting_sink")
        last = rig.life
        os.kill(last.pid, signal.SIGKILL)
        rig.tend_until(lambda last=last: rig.life is not last)
    assert rig.partition.suspicion.width is None
    (tmp_path / "block").unlink()
    rig.tend_until_done()
    assert not rig.dead_letters
    assert handled(tmp_path, 0) == [0]


def test_after_its_sink_took_something_it_waits_no_more(tmp_path, rig):
    (tmp_path / "block").touch()
    rig.place([b"good"] * 40)
    rig.place([b"SIGSEGV"])
    rig.tend_until(lambda: rig.life is not None and rig.life.state == "waiting_sink")
    (tmp_path / "block").unlink()
    rig.tend_until_done()
    assert list(rig.dead_letters) == [40]


def test_a_handler_that_cannot_be_made_accuses_nobody(tmp_path, rig):
    (tmp_path / "unmade").touch()
    rig.place([b"good"])
    rig.tend_until(lambda: rig.partition.restarts >= 5)
    assert rig.partition.suspicion.width is None
    (tmp_path / "unmade").unlink()
    rig.tend_until_done()
    assert not rig.dead_letters


def test_deaths_without_progress_are_waited_for_longer_each_time(tmp_path):
    """The first is replaced at once; then come 0.2, 0.4, 0.8 s, each shortened at random by up to a half."""
    (tmp_path / "unmade").touch()
    with fork_server(tmp_path) as server:
        rig = Rig(server, structs.replace(SETTINGS, worker_backoff_first_s=0.1, worker_backoff_max_s=10.0))
        due_s = []
        for deaths in range(1, 5):
            rig.tend_until(lambda: rig.partition.restarts == deaths)  # noqa: B023 - called at once
            due_s.append(rig.partition.restart_at_s)
        assert due_s[0] <= time.monotonic()
        assert due_s[3] - due_s[2] >= 0.4
        rig.end()


def test_a_death_shows_by_the_end_of_its_own_channel(rig):
    """At once, without a look at the process; each life has a channel of its own, else it would not end with it."""
    for _ in range(2):
        rig.place([b"good"] * 3)
        rig.tend_until_done()
        life = rig.life
        life.look_at_s = math.inf
        life.kill()
        rig.tend_until(lambda: rig.life not in (None, life), timeout_s=20)  # noqa: B023 - called at once
    assert not rig.dead_letters


def test_a_death_shows_though_a_child_holds_the_channel(tmp_path, rig):
    """A handler may start processes; what they inherit outlives the worker."""
    (tmp_path / "child").touch()
    try:
        rig.place([b"good", b"child", b"good"])
        rig.tend_until_done()
        assert list(rig.dead_letters) == [1]
    finally:
        (tmp_path / "child").unlink()


def test_the_fork_servers_death_accuses_nobody(tmp_path):
    with fork_server(tmp_path) as server:
        rig = Rig(server, SETTINGS)
        rig.place([b"good"])
        (tmp_path / "block").touch()
        for _ in range(4):
            rig.tend_until(lambda: rig.life is not None and rig.life.was_ready)
            last = rig.life
            server._process.kill()
            rig.tend_until(lambda last=last: rig.life is not last)
        assert rig.partition.suspicion.width is None
        (tmp_path / "block").unlink()
        rig.tend_until_done()
        assert not rig.dead_letters
        rig.end()


def test_a_frozen_fork_server_is_replaced_and_its_late_answer_is_no_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server_module, "_FORK_TIMEOUT_S", 0.3)
    with fork_server(tmp_path) as server:
        rig = Rig(server, SETTINGS)
        rig.tend_until(lambda: rig.life is not None and rig.life.was_ready)
        frozen, first = server._process, rig.life
        os.kill(frozen.pid, signal.SIGSTOP)
        os.kill(first.pid, signal.SIGKILL)
        rig.place([b"good"] * 5)
        rig.tend_until_done()
        assert frozen.poll() == -signal.SIGKILL
        assert server._process is not frozen
        assert handled(tmp_path, 0) == list(range(5))
        rig.end()


def test_no_zombie_is_left(rig):
    """Also of those that nobody asks about."""
    rig.place([b"raise"] + [b"good"] * 3)
    rig.tend_until_done()
    rig.tend_until(lambda: rig.life is not None and rig.life.was_ready)
    rig.workers.kill([rig.partition])
    server_pid = rig.workers._server._process.pid
    children = Path(f"/proc/{server_pid}/task/{server_pid}/children")
    deadline_s = time.monotonic() + 60
    while children.read_text().split():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_worker_ignores_signals_and_holds_no_descriptor_but_its_own(tmp_path):
    """Whatever the parent has open and inheritable: its ring (a mapping keeps one more), its channel, its journal."""
    with socket.socket() as foreign, (tmp_path / "foreign").open("w") as file, fork_server(tmp_path) as server:
        for fd in (foreign.fileno(), file.fileno()):
            os.set_inheritable(fd, True)
        rigs = [Rig(server, number=number) for number in range(2)]
        for rig in rigs:
            rig.tend_until(lambda rig=rig: rig.life is not None and rig.life.was_ready)
        own = Path(f"/proc/{rigs[1].life.pid}")
        held = sorted(str(fd.readlink()).split(":")[0] for fd in (own / "fd").iterdir() if int(fd.name) > 2)
        assert held == ["/memfd", "/memfd", str(tmp_path / "1.journal"), "socket"]
        [ignored] = [line for line in (own / "status").read_text().splitlines() if line.startswith("SigIgn")]
        mask = int(ignored.split()[1], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            assert mask >> (number - 1) & 1, number
        for rig in rigs:
            rig.end()
