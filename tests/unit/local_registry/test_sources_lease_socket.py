"""The socket for dnsmasq's script: who may write, what becomes of its file, what a flood costs."""

import asyncio
import os
import socket
import stat

import pytest

from dmpd.local_registry.sources import lease_hook, metrics
from dmpd.local_registry.sources.lease_script import DATAGRAM_BYTES_MAX
from dmpd.local_registry.sources.lease_socket import CHECK_INTERVAL_S, DATAGRAMS_PER_TURN, LeaseSocket
from tests.support.aio import async_test

GOOD = lease_hook.datagram(["add", "02:00:00:77:00:01", "10.77.1.84"], {})


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lease.sock"


@pytest.fixture
def lease_socket(path, clock):
    made = LeaseSocket(path, now_s=clock)
    yield made
    made.close()


@pytest.fixture
def sender():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        yield sender


def count(fate: str) -> float:
    return metrics.lease_datagrams.labels(fate)._value.get()


def test_owner_and_group_may_write_and_nobody_else(path, lease_socket):
    before = os.umask(0o000)
    try:
        assert lease_socket.take() == []
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_at_no_moment_may_others_write(path, lease_socket, monkeypatch):
    seen = []
    monkeypatch.setattr(type(path), "chmod", lambda self, mode: seen.append(stat.S_IMODE(self.stat().st_mode)))
    before = os.umask(0o000)
    try:
        lease_socket.take()
    finally:
        os.umask(before)
    assert seen == [0o660], "as bind left it"


def test_a_file_of_an_earlier_life_is_replaced_and_goes_at_the_end(path, lease_socket, sender):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    lease_socket.take()
    sender.sendto(GOOD, str(path))
    assert len(lease_socket.take()) == 1
    lease_socket.close()
    assert not path.exists()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_its_file_may_be_taken_away(path, clock, lease_socket, sender, how):
    lease_socket.take()
    path.unlink()
    if how == "replaced":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
    clock.now_s += CHECK_INTERVAL_S
    lease_socket.take()
    sender.sendto(GOOD, str(path))
    assert len(lease_socket.take()) == 1


def test_what_is_no_socket_stays_and_is_told_once(path, clock, lease_socket, sender, caplog):
    path.write_text("somebody's")
    troubles = metrics.troubles.labels("leases")
    before = troubles._value.get()
    for _turn in range(4):
        assert lease_socket.take() == []
        clock.now_s += CHECK_INTERVAL_S
    assert path.read_text() == "somebody's"
    assert troubles._value.get() == before + 4, "tried every time"
    assert len(caplog.records) == 1, "said once"
    path.unlink()
    lease_socket.take()
    sender.sendto(GOOD, str(path))
    assert len(lease_socket.take()) == 1


def test_a_folder_that_comes_later_is_waited_for(tmp_path, clock, sender):
    path = tmp_path / "later" / "lease.sock"
    made = LeaseSocket(path, now_s=clock)
    assert made.take() == []
    path.parent.mkdir()
    clock.now_s += CHECK_INTERVAL_S
    made.take()
    sender.sendto(GOOD, str(path))
    assert len(made.take()) == 1
    made.close()


def test_closing_leaves_a_file_that_is_not_ours(path, lease_socket):
    lease_socket.take()
    path.unlink()
    path.write_text("somebody's")
    lease_socket.close()
    assert path.exists()


def test_hostile_datagrams_are_counted_and_dropped(path, lease_socket, sender):
    lease_socket.take()
    before = {fate: count(fate) for fate in ("taken", "bad", "oversized")}
    for datagram in (b"", b"nonsense", GOOD + b"\0" + b"x" * DATAGRAM_BYTES_MAX, GOOD):
        sender.sendto(datagram, str(path))
        assert len(lease_socket.take()) == (1 if datagram is GOOD else 0)
    assert {fate: count(fate) - before[fate] for fate in before} == {"taken": 1, "bad": 2, "oversized": 1}


def test_a_turn_is_bounded(path, lease_socket, monkeypatch):
    """However many wait: the kernel of this machine may hold fewer than a turn takes, so the count is made at recv."""
    lease_socket.take()
    received = []

    class Flood:
        def recv(self, size: int) -> bytes:
            received.append(size)
            return GOOD

        def close(self) -> None: ...

    lease_socket._socket.close()
    monkeypatch.setattr(lease_socket, "_socket", Flood())
    assert len(lease_socket.take()) == len(received) == DATAGRAMS_PER_TURN


@async_test
async def test_a_datagram_ends_the_wait(path, lease_socket, sender):
    lease_socket.take()
    waiting = asyncio.create_task(lease_socket.wait(600))
    await asyncio.sleep(0)
    assert not waiting.done()
    sender.sendto(GOOD, str(path))
    async with asyncio.timeout(30):
        await waiting
    await lease_socket.wait(600)  # it is still there, so there is nothing to wait for
    assert len(lease_socket.take()) == 1
    await lease_socket.wait(0.001)


@async_test
async def test_without_a_socket_the_wait_ends_too(tmp_path, clock):
    made = LeaseSocket(tmp_path / "absent" / "lease.sock", now_s=clock)
    made.take()
    async with asyncio.timeout(30):
        await made.wait(0.001)
