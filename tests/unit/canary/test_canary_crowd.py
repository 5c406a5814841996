"""How a crowd is led: who sends what and when, how far behind it is, who probes, what a sweep says in whose name."""

import asyncio
import resource
from types import SimpleNamespace

import pytest

from dmpd.canary import crowd as crowds
from dmpd.canary.crowd import Crowd, Job, Leftover
from dmpd.canary.plan import Plan, rae_of
from dmpd.model.codec import decode
from dmpd.model.messages import Closed
from dmpd.model.topics import info_topic, parse_topic
from dmpd.runtime.mqtt_mass import Opened
from dmpd.runtime.mqtt_stream import MqttUnreachableError
from tests.support.aio import async_test

PLAN = Plan(run="00000000-0000-0000-0000-000000000001", seed=1, epoch=9, first=1, last=4, changes=4, started_ms=1)
FORMER = "00000000-0000-4000-8000-00000000000f"
SLOTS = list(range(2, PLAN.event_slot + 1))


class Clock:
    """Goes on when somebody sleeps, or when a test says so."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        self._sleep = asyncio.sleep
        monkeypatch.setattr(crowds, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, wait_s):
        self.now_s += max(0.0, wait_s)
        await self._sleep(0)


class Client:
    """In the place of a connected client."""

    def __init__(self, number, share=None, context=None, *, code=0, costs_s=0.0, clock=None):
        self.rae = rae_of(number)
        self.alive, self.idle, self.unsent = True, True, 0
        self.sent, self.at_s, self.reads, self.writes = [], [], [], []
        self.left, self.pinged = False, []
        self.mqtt = SimpleNamespace(leave=self._leave, keep_alive=self._keep_alive, abort=self._leave)
        self._code, self._costs_s, self._clock = code, costs_s, clock

    async def arrive(self, address, *, timeout_s):
        return Opened(0.1, 0.2, 0.3, 0, 0, self._code, False)

    async def look(self, address, *, timeout_s):
        if self._code:
            raise ConnectionError("CONNACK 0x87")

    async def probe_reads(self, neighbour, *, wide):
        self.reads.append((neighbour, wide))

    def probe_writes(self, neighbour):
        self.writes.append(neighbour)

    def send(self, slot):
        self.sent.append(slot)
        if self._clock is not None:
            self.at_s.append(self._clock.now_s)
            self._clock.now_s += self._costs_s
            self._costs_s = 0.0

    def _keep_alive(self, now_s, idle_s):
        self.pinged.append(idle_s)

    def _leave(self):
        self.left = True


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def crowd_of(clients=None, **changes):
    job = {
        "plan": PLAN,
        "whole_first": 1,
        "whole_last": 4,
        "host": "127.0.0.1",
        "port": 1,
        "ca_file": "/absent/ca.crt",
        "certificates_dir": "/absent",
        "ramp": "herd",
        "ramp_s": 1.0,
        "profile": "steady",
        "flash_s": 8.0,
    }
    made = Crowd(Job(**job | changes), progress=lambda _: None)
    made._address = ("an", "address")
    made._contexts = dict.fromkeys(PLAN.numbers)
    made._clients = clients or {}
    return made


@pytest.mark.parametrize(("profile", "behind_s"), [("steady", 3.0), ("burst", 0.0)])
@async_test
async def test_a_flash_says_how_far_it_was_behind_and_leaves_nothing_out(clock, profile, behind_s):
    """The first message costs 3.5 s; the second was due after half a second."""
    clients = {number: Client(number, clock=clock, costs_s=3.5 * (number == 1)) for number in PLAN.numbers}
    made = crowd_of(clients, profile=profile)
    await made.flash()
    assert [client.sent for client in clients.values()] == [SLOTS] * 4
    assert made.report().behind_s == pytest.approx(behind_s, abs=0.05)


@async_test
async def test_who_is_not_acknowledged_is_waited_for_no_longer_than_that(clock):
    clients = {1: Client(1)}
    clients[1].idle = False
    took_s = await crowd_of(clients, profile="burst", puback_timeout_s=7.0).flash()
    assert 7.0 <= took_s < 8.0


@async_test
async def test_some_probe_their_neighbour_and_two_of_them_the_whole_tree(clock, monkeypatch):
    monkeypatch.setattr(crowds, "CanaryClient", Client)
    made = crowd_of(probes=(1, 3, 4))
    connected = await made.connect()
    await made.flash()
    await made.close()
    assert connected.clients == 4
    assert {number: client.reads for number, client in made._clients.items()} == {
        1: [(2, True)],
        2: [],
        3: [(4, True)],
        4: [(1, False)],  # the last one's is the first
    }
    assert [client.writes for client in made._clients.values()] == [[2], [], [4], [1]]
    whole = [0, 1, *SLOTS, PLAN.closed_slot, PLAN.farewell_slot]
    assert [client.sent for client in made._clients.values()] == [whole] * 4
    assert all(client.left for client in made._clients.values())


@async_test
async def test_who_is_refused_is_told_and_is_none_of_the_crowd(clock, monkeypatch):
    monkeypatch.setattr(crowds, "CanaryClient", lambda number, *_: Client(number, code=0x87 * (number == 2)))
    made = crowd_of()
    connected = await made.connect()
    await made.close()
    assert (connected.clients, dict(connected.codes)) == (3, {"0x00": 3, "0x87": 1})
    assert connected.errors.examples == ["canary-0002: CONNACK 0x87"]


@async_test
async def test_the_silent_are_kept_alive_meanwhile(clock, monkeypatch):
    monkeypatch.setattr(crowds, "CanaryClient", Client)
    made = crowd_of()
    await made.connect()
    for _ in range(5):
        await asyncio.sleep(0)
    await made.close()
    assert all(20.0 in client.pinged for client in made._clients.values())


@async_test
async def test_a_control_group_sends_one_message_each_interval_until_it_closes(clock):
    clients = {number: Client(number, clock=clock) for number in (1, 2)}
    made = crowd_of(clients)
    began_s = clock.now_s
    made.beat(1.0)
    await made._beats
    await made.close()
    assert [client.sent for client in clients.values()] == [[*SLOTS[:-1], PLAN.closed_slot, PLAN.farewell_slot]] * 2
    assert [at_s - began_s for at_s in clients[1].at_s[:4]] == pytest.approx([0, 1, 2, 3])
    assert [at_s - began_s for at_s in clients[2].at_s[:4]] == pytest.approx([0.5, 1.5, 2.5, 3.5])


@async_test
async def test_a_control_group_that_was_closed_sends_no_more(clock):
    clients = {1: Client(1)}
    made = crowd_of(clients)
    made.beat(1.0)
    await asyncio.sleep(0)
    await made.close()
    sent = list(clients[1].sent)
    for _ in range(10):
        await asyncio.sleep(1.0)
    assert clients[1].sent == sent
    assert sent[-1] == PLAN.farewell_slot


@async_test
async def test_only_who_could_look_has_looked(clock, monkeypatch):
    monkeypatch.setattr(crowds, "CanaryClient", lambda number, *_: Client(number, code=0x87 * (number == 2)))
    made = crowd_of(dict.fromkeys((1, 2, 3)))
    assert await made.cleanup() == 2


@async_test
async def test_a_sweep_closes_the_very_device_session_that_was_left_and_counts_what_the_broker_took(monkeypatch):
    published, left = [], []

    class Sweeper:
        def __init__(self, name, *, on_message, on_puback, on_closed):
            self._name, self._on_puback = name, on_puback

        async def open(self, address, context, *, clean_start, timeout_s):
            if self._name == rae_of(3):
                raise MqttUnreachableError("TCP: refused")

        def publish(self, topic, content, key):
            published.append((topic, content))
            self._on_puback(key, 0x87 if self._name == rae_of(2) else 0)

        def leave(self):
            left.append(self._name)

    monkeypatch.setattr(crowds, "MassClient", Sweeper)
    made = crowd_of()
    made._contexts = dict.fromkeys(PLAN.numbers, "a context")
    assert await made.sweep([Leftover(number, FORMER) for number in (1, 2, 3)]) == 1
    assert [topic for topic, _ in published] == [info_topic(rae_of(number), FORMER) for number in (1, 2)]
    topic, content = published[0]
    closed = decode(content, parse_topic(topic))
    assert isinstance(closed, Closed)
    assert (closed.session, closed.reason, closed.epoch) == (FORMER, "left", PLAN.epoch)
    assert closed.rev > 10_000, "above whatever the device session had"
    assert sorted(left) == [rae_of(number) for number in (1, 2, 3)]


@async_test
async def test_a_crowd_takes_as_many_files_as_it_may_have():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    less = 4096 if hard == resource.RLIM_INFINITY else hard - 1
    made = crowd_of()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (less, hard))
        await made.prepare()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert made._connect_errors.count == 4, "a certificate that cannot be read is told of, and stops nobody"
