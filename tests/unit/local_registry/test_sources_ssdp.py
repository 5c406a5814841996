"""The SSDP source turn by turn, on an ether that only listens and a clock that stands still."""

import asyncio
import ipaddress

import pytest

from dmpd.local_registry.sources.lan_addresses import LanAddresses
from dmpd.local_registry.sources.ssdp import (
    ASK_AGAIN_S,
    ASKS_BURST,
    HELD_MESSAGES_MAX,
    HELD_SENDERS_MAX,
    STRANGERS_ASKED_BURST,
    TARGETS,
    SsdpSource,
)
from dmpd.local_registry.sources.ssdp_gate import SENDER_BURST
from dmpd.local_registry.sources.ssdp_message import MDX_TARGETS
from tests.support.aio import async_test, until
from tests.support.ssdp_device import mdx_reply, notify

IP, MAC, ESN = "10.77.1.1", "3c:12:aa:00:00:01", "SIMTV-0001"
MDX = MDX_TARGETS[0]


class Ether:
    """Takes down what is sent; says nothing by itself."""

    def __init__(self) -> None:
        self.sent: list[str | None] = []
        self.broken = False
        self.opened = 0

    def open(self, receive) -> None:
        if self.broken:
            raise OSError("no such interface")
        self.opened += 1
        self.receive = receive

    def close(self) -> None:
        """Nothing to close."""

    def addresses(self) -> LanAddresses:
        return LanAddresses((ipaddress.IPv4Network("10.77.0.0/22"),), frozenset({"10.77.0.1"}))

    def send(self, datagram: bytes, ip: str | None) -> None:
        if self.broken:
            raise OSError("no such interface")
        self.sent.append(ip)

    async def fetch(self, location):
        return None

    def asked(self, ip: str | None) -> int:
        """How often ``ip`` was asked, all targets together counting once."""
        return self.sent.count(ip) // len(TARGETS)


class Rig:
    def __init__(self) -> None:
        self.ether = Ether()
        self.now_s = 100.0
        self.macs = {IP: MAC}
        self.source = SsdpSource(self.ether, self.macs.get, now_s=lambda: self.now_s, search_interval_s=60.0)
        self.source._step()

    def step(self, seconds: float = 0.0):
        """Let time pass and take one turn; returns what is said."""
        self.now_s += seconds
        self.source._step()
        said = list(self.source._said)
        self.source._said.clear()
        return said

    def hear(self, datagram: bytes, ip: str = IP) -> None:
        self.ether.receive(datagram, ip)


def test_all_are_asked_twice_at_the_start_and_then_at_intervals():
    rig = Rig()
    counts = []
    for seconds in (0.0, 0.3, 1.3, 30.0, 31.0, 60.0):
        rig.step(seconds)
        counts.append(rig.ether.asked(None))
    assert counts == [0, 1, 2, 2, 3, 4]


def test_who_says_goodbye_is_asked_and_believed_after_two_seconds_of_silence():
    rig = Rig()
    rig.hear(mdx_reply(ESN))
    assert [one.esn for one in rig.step()] == [ESN]
    rig.hear(notify(MDX, ESN, "ssdp:byebye"))
    assert rig.step(0.01) == []
    assert rig.ether.asked(IP) == 1
    assert rig.step(1.9) == []
    assert [one.power for one in rig.step(0.3)] == ["standby"]


def test_who_answers_after_a_goodbye_in_its_name_stays():
    rig = Rig()
    rig.hear(mdx_reply(ESN))
    rig.step()
    rig.hear(notify(MDX, ESN, "ssdp:byebye"))
    rig.step(0.01)
    rig.hear(mdx_reply(ESN))
    assert [one.power for one in rig.step(5.0)] == []


def test_who_is_silent_and_gone_is_no_sleeper():
    rig = Rig()
    rig.hear(mdx_reply(ESN))
    rig.step()
    rig.hear(notify(MDX, ESN, "ssdp:byebye"))
    del rig.macs[IP]
    assert rig.step(5.0) == []
    assert list(rig.source._book.known()) == []


@async_test
async def test_age_ends_a_service_only_after_unanswered_searches():
    rig = Rig()
    rig.hear(mdx_reply(ESN))
    rig.step()
    said = [one for _minute in range(29) for one in rig.step(60.0)]
    assert said == []
    said = [one for _minute in range(3) for one in rig.step(60.0)]
    assert [one.power for one in said] == ["standby"]


@async_test
async def test_a_poked_device_is_asked_again_until_it_answers():
    rig = Rig()
    await rig.source.poke(ip=IP, mac=MAC)
    rig.step(ASK_AGAIN_S[0])
    rig.step(ASK_AGAIN_S[1])
    assert rig.ether.asked(IP) == 3
    rig.hear(mdx_reply(ESN))
    for _turn in range(5):
        rig.step(1.0)
    assert rig.ether.asked(IP) == 3
    await rig.source.poke(ip=IP, mac=MAC)
    rig.step(10.0)
    assert rig.ether.asked(IP) == 4, "it is known to answer: once is enough"


@async_test
async def test_a_device_that_never_answers_is_not_asked_for_ever():
    rig = Rig()
    await rig.source.poke(ip=IP, mac=MAC)
    for _turn in range(60):
        rig.step(1.0)
    assert rig.ether.asked(IP) == 1 + len(ASK_AGAIN_S)
    assert rig.source._asking == {}


@pytest.mark.parametrize("ip", ["10.77.0.1", "10.77.3.255", "192.0.2.1", "fe80::1", "nonsense"])
@async_test
async def test_only_devices_of_the_lan_are_asked(ip):
    rig = Rig()
    rig.macs[ip] = MAC
    await rig.source.poke(ip=ip, mac=MAC)
    rig.hear(mdx_reply(ESN), ip)
    assert rig.step(0.01) == []
    assert rig.ether.sent == []


def test_a_stranger_is_held_until_the_kernel_knows_it():
    rig = Rig()
    rig.hear(mdx_reply("SIMTV-0002"), "10.77.1.2")
    assert (rig.step(0.05), rig.ether.asked("10.77.1.2")) == ([], 0)
    assert (rig.step(0.06), rig.ether.asked("10.77.1.2")) == ([], 1)
    rig.macs["10.77.1.2"] = "3c:12:aa:00:00:02"
    (said,) = rig.step(0.5)
    assert (said.mac, said.esn) == ("3c:12:aa:00:00:02", "SIMTV-0002")


def test_a_stranger_that_stays_one_is_forgotten():
    rig = Rig()
    rig.hear(mdx_reply("SIMTV-0002"), "10.77.1.2")
    rig.step(0.2)
    rig.step(2.0)
    rig.macs["10.77.1.2"] = "3c:12:aa:00:00:02"
    assert (rig.step(1.0), rig.source._held) == ([], {})


def test_made_up_strangers_are_held_and_asked_within_bounds():
    rig = Rig()
    for turn in range(10_000):
        rig.now_s += 1e-4
        rig.hear(mdx_reply("SIMTV-0002"), f"10.77.{1 + turn // 250 % 2}.{1 + turn % 250}")
        if turn % 100 == 0:
            rig.step(0.0)
            assert len(rig.source._held) <= HELD_SENDERS_MAX
            assert max((len(held.messages) for held in rig.source._held.values()), default=0) <= HELD_MESSAGES_MAX
    assert rig.ether.asked(None) <= 1
    asked = len(rig.ether.sent) // len(TARGETS)
    assert asked <= STRANGERS_ASKED_BURST + 12


def test_a_loud_device_is_heard_seldom():
    rig = Rig()
    taken = []
    take = rig.source._take
    rig.source._take = lambda *args: (taken.append(args), take(*args))
    for number in range(10_000):
        rig.hear(mdx_reply(f"SIMTV-{number:05d}"))
    assert len(taken) == SENDER_BURST
    assert len(rig.step()) <= 10


@async_test
async def test_pokes_are_bounded():
    rig = Rig()
    for number in range(1000):
        await rig.source.poke(ip=f"10.77.{1 + number // 250}.{1 + number % 250}", mac=None)
    assert len(rig.ether.sent) == ASKS_BURST * len(TARGETS)


def test_broken_sockets_are_told_and_opened_again():
    rig = Rig()
    rig.ether.broken = True
    with pytest.raises(OSError, match="no such interface"):
        rig.step(1.0)


@async_test
async def test_a_lan_that_is_not_there_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("dmpd.local_registry.sources.ssdp.REOPEN_INTERVAL_S", 0.01)
    ether = Ether()
    ether.broken = True
    source = SsdpSource(ether, {IP: MAC}.get)
    signals = source.signals()

    async def first():
        return await anext(signals)

    waiting = asyncio.create_task(first())
    await until(lambda: "no such interface" in caplog.text, "the trouble is told")
    await source.poke(ip=IP, mac=MAC)
    assert ether.sent == []
    ether.broken = False
    await until(lambda: ether.opened == 1, "opened")
    ether.receive(mdx_reply(ESN), IP)
    assert (await asyncio.wait_for(waiting, 2)).esn == ESN
    await signals.aclose()


@pytest.mark.parametrize("steps", range(4))
@async_test
async def test_a_stop_that_comes_with_a_wake_up_is_not_lost(steps):
    rig = Rig()
    pause = asyncio.create_task(rig.source._pause())
    for _ in range(3):
        await asyncio.sleep(0)
    rig.source._wake.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    if pause.cancel():  # it had not ended before
        with pytest.raises(asyncio.CancelledError):
            await pause
