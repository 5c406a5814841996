"""Leases over time: what a change of the file says, and how the file is watched."""

import asyncio
import os
import socket
from contextlib import aclosing

import pytest
from msgspec import structs

from dmpd.local_registry.sources import lease_hook, metrics
from dmpd.local_registry.sources.lease_book import LeaseBook, Reading
from dmpd.local_registry.sources.lease_file import Lease
from dmpd.local_registry.sources.lease_socket import CHECK_INTERVAL_S, LeaseSocket
from dmpd.local_registry.sources.leases import SETTLE_S, LeaseSource
from tests.support.aio import async_test

NOW_S, WALL_S = 50.0, 1_000_000.0


def lease(n: int, *, expiry: int = 1_000_300, ip: str | None = None) -> Lease:
    return Lease(expiry=expiry, mac=f"02:00:00:77:00:0{n}", ip=ip or f"10.77.1.{n}", hostname=f"dut-{n}")


def reading(*leases: Lease, file_id: int = 1) -> Reading:
    return Reading(file_id=file_id, leases={one.ip: one for one in leases})


@pytest.fixture
def book() -> LeaseBook:
    book = LeaseBook()
    book.update(reading(lease(1), lease(2)), now_s=NOW_S, wall_s=WALL_S)
    return book


def said(book: LeaseBook, *leases: Lease, file_id: int = 1, wall_s: float = WALL_S):
    found = book.update(reading(*leases, file_id=file_id), now_s=NOW_S, wall_s=wall_s)
    return [(one.ip, one.reach, one.gone) for one in found]


def test_what_the_file_holds_at_the_start_says_nothing_of_who_is_alive():
    found = LeaseBook().update(reading(lease(1)), now_s=NOW_S, wall_s=WALL_S)
    assert [(one.mac, one.hostname, one.reach) for one in found] == [("02:00:00:77:00:01", "dut-1", None)]


def test_a_new_or_renewed_lease_is_a_sign_of_life_and_an_old_one_is_not(book):
    assert said(book, lease(1, expiry=1_000_600), lease(2), lease(3)) == [
        ("10.77.1.1", "up", False),
        ("10.77.1.3", "up", False),
    ]
    assert said(book, lease(1, expiry=1_000_600), lease(2), lease(3)) == []


def test_a_lease_that_lost_its_name_to_another_device_is_no_sign_of_life(book):
    nameless = structs.replace(lease(1), hostname=None)
    assert said(book, nameless, lease(2), structs.replace(lease(3), hostname="dut-1")) == [
        ("10.77.1.1", None, False),
        ("10.77.1.3", "up", False),
    ]


def test_a_lease_that_ends_before_its_time_was_given_back(book):
    assert said(book, lease(1)) == [("10.77.1.2", "down", True)]


def test_a_lease_that_ran_out_says_nothing_for_sure(book):
    assert said(book, lease(1), wall_s=1_000_300.0) == [("10.77.1.2", "unsure", False)]


def test_a_device_with_another_address_did_not_leave(book):
    assert said(book, lease(1), lease(2, ip="10.77.1.99")) == [("10.77.1.99", "up", False)]


def test_an_emptied_or_replaced_file_takes_nobody_away(book):
    assert said(book, lease(1), file_id=2) == [("10.77.1.2", "unsure", False)]
    assert said(book, file_id=2) == [("10.77.1.1", "unsure", False)]


def test_what_is_missing_while_the_file_is_written_is_neither_gone_nor_new_again(book):
    def told(*leases, settled, file_id=1):
        found = book.update(reading(*leases, file_id=file_id), now_s=NOW_S, wall_s=WALL_S, settled=settled)
        return [(one.ip, one.reach, one.gone) for one in found]

    assert told(lease(3), settled=False) == [("10.77.1.3", "up", False)], "a new one is told at once"
    assert told(lease(1), lease(2), lease(3), settled=False) == []
    assert told(lease(2), settled=False) == []
    assert told(lease(2), lease(3), settled=True) == [("10.77.1.1", "down", True)]
    assert told(lease(2), settled=False, file_id=2) == []
    assert told(lease(2), settled=True, file_id=2) == [("10.77.1.3", "unsure", False)], "another file: nobody left"


def test_a_file_that_is_written_over_slowly_takes_nobody_away(tmp_path):
    """What a reader sees of it in between has another size each time, and lacks what stood at its end."""
    path, now_s = tmp_path / "leases", [1000.0]
    both = LINE.format(expiry=100, n=1) + LINE.format(expiry=100, n=2)
    source = LeaseSource(path, now_s=lambda: now_s[0], wall_s=lambda: 0.0)

    def look(content):
        path.write_text(content)
        now_s[0] += SETTLE_S / 4
        return [(one.ip, one.reach, one.gone) for one in source._look()]

    assert look(both) == [("10.77.1.1", None, False), ("10.77.1.2", None, False)]
    assert look(LINE.format(expiry=100, n=2)) == []
    assert look(both) == []
    path.write_text(LINE.format(expiry=100, n=2))
    assert source._look() == []
    now_s[0] += SETTLE_S
    assert [(one.ip, one.gone) for one in source._look()] == [("10.77.1.1", True)]


LINE = "{expiry} 02:00:00:77:00:0{n} 10.77.1.{n} dut-{n} *\n"


async def collect(source: LeaseSource, steps):
    """Run ``steps`` one by one; after each, return what was said until the source has looked three times."""
    found: list[list] = []
    look, looks = source._look, 0

    def counted():
        nonlocal looks
        looks += 1
        return look()

    source._look = counted

    async def consume():
        async with aclosing(source.signals()) as signals:
            async for signal in signals:
                found[-1].append(signal)

    task = None
    for step in steps:
        found.append([])
        step()
        task = task or asyncio.create_task(consume())
        enough = looks + 3
        async with asyncio.timeout(5):
            while looks < enough:  # noqa: ASYNC110 - counts looks, which tell nobody
                await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    return [[(one.ip, one.reach, one.gone) for one in said] for said in found]


def test_the_file_may_be_absent_come_change_and_be_replaced(tmp_path):
    path = tmp_path / "leases"
    source = LeaseSource(path, poll_interval_s=0.002, wall_s=lambda: 0.0)
    first = LINE.format(expiry=100, n=1)

    def replace():
        other = tmp_path / "other"
        other.write_text(first + LINE.format(expiry=100, n=2))
        other.replace(path)

    found = asyncio.run(
        collect(
            source,
            [
                lambda: None,
                lambda: path.write_text(first),
                lambda: path.write_text(LINE.format(expiry=200, n=1)),
                replace,
                path.unlink,
                lambda: path.write_text(first + LINE.format(expiry=100, n=2)),
            ],
        )
    )
    up1, up2 = ("10.77.1.1", "up", False), ("10.77.1.2", "up", False)
    assert found == [[], [("10.77.1.1", None, False)], [up1], [up1, up2], [], []]


def test_a_change_with_the_same_time_and_size_is_not_missed(tmp_path):
    """Two writes within one tick of the kernel's clock leave one modification time: so every change is read twice."""
    path = tmp_path / "leases"
    path.write_text(LINE.format(expiry=100, n=1))
    status = path.stat()
    source = LeaseSource(path)
    assert [one.reach for one in source._look()] == [None]
    path.write_text(LINE.format(expiry=200, n=1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [one.reach for one in source._look()] == ["up"]
    assert source._look() == []


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_a_trouble_and_no_exception(tmp_path, caplog, kind):
    path = tmp_path / "leases"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    source = LeaseSource(path)
    troubles = metrics.troubles.labels(source.name)
    before = troubles._value.get()
    for _look in range(4):
        assert source._look() == []
    assert troubles._value.get() == before + 4, "tried every time"
    assert len(caplog.records) == 1, "said once, not ten times a second"
    path.rmdir() if kind == "folder" else path.unlink()
    path.write_text(LINE.format(expiry=100, n=1))
    assert len(source._look()) == 1


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_a_datagram_is_read_before_the_file_that_has_its_lease(tmp_path):
    """The lease and its vendor class come in one turn, the arrival first; the socket may go and come."""
    path, clock = tmp_path / "leases", Clock()
    told = LeaseSocket(tmp_path / "lease.sock", now_s=clock)
    source = LeaseSource(path, socket=told, now_s=clock)
    path.write_text("")
    assert source._turn() == []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for n in (1, 2):
            path.write_text("".join(LINE.format(expiry=100 * n, n=one) for one in range(1, n + 1)))
            words = ["add", f"02:00:00:77:00:0{n}", f"10.77.1.{n}", f"dut-{n}"]
            sender.sendto(lease_hook.datagram(words, {b"DNSMASQ_VENDOR_CLASS": b"acme"}), str(tmp_path / "lease.sock"))
            found = [(one.ip, one.arrived, one.vendor_class) for one in source._turn()]
            assert found[-2:] == [(f"10.77.1.{n}", True, None), (f"10.77.1.{n}", False, "acme")]
            (tmp_path / "lease.sock").unlink()
            clock.now_s += CHECK_INTERVAL_S
            source._turn()
    told.close()


def test_a_lease_and_its_datagram_that_come_within_a_turn_are_both_told(tmp_path, monkeypatch):
    path = tmp_path / "leases"
    path.write_text("")
    told = LeaseSocket(tmp_path / "lease.sock")
    source = LeaseSource(path, socket=told)
    source._turn()
    take = told.take

    def take_late():
        path.write_text(LINE.format(expiry=100, n=1))
        words = ["add", "02:00:00:77:00:01", "10.77.1.1"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(lease_hook.datagram(words, {b"DNSMASQ_VENDOR_CLASS": b"acme"}), str(tmp_path / "lease.sock"))
        return take()

    monkeypatch.setattr(told, "take", take_late)
    assert [(one.arrived, one.vendor_class) for one in source._turn()] == [(True, None), (False, "acme")]
    told.close()


@async_test
async def test_a_datagram_is_told_long_before_the_next_look(tmp_path):
    path = tmp_path / "leases"
    path.write_text("")
    told = LeaseSocket(tmp_path / "lease.sock")
    source = LeaseSource(path, socket=told, poll_interval_s=3600)
    async with aclosing(source.signals()) as signals:
        first = asyncio.create_task(anext(signals))
        async with asyncio.timeout(30):
            while not (tmp_path / "lease.sock").exists():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        path.write_text(LINE.format(expiry=100, n=1))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            words = ["add", "02:00:00:77:00:01", "10.77.1.1"]
            sender.sendto(lease_hook.datagram(words, {b"DNSMASQ_VENDOR_CLASS": b"acme"}), str(tmp_path / "lease.sock"))
        async with asyncio.timeout(30):
            assert (await first).arrived
            assert (await anext(signals)).vendor_class == "acme"
    assert not (tmp_path / "lease.sock").exists(), "who ends takes it away"
