"""One RAE's engine against a cloud with faults: nothing committed is lost, whatever dies or forgets."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from msgspec.structs import replace

from dmpd.local_registry.engine import Engine
from dmpd.local_registry.outbox import Window
from dmpd.local_registry.settings import LocalRegistrySettings, OutboxSettings, PresenceSettings
from dmpd.local_registry.source import Evidence, LanDown, LanSignal, LanUp
from dmpd.local_registry.store import DATABASE_NAME, Store, committed_total, read_devices
from dmpd.model.messages import Change, Checkpoint, Closed, Durable, Event
from tests.support.aio import async_test
from tests.support.edge_cloud import EdgeCloud

RAE = "R1"


class ScriptedLan:
    """A source that says what the test says."""

    name = "scripted"

    def __init__(self) -> None:
        self.queue: asyncio.Queue[LanSignal] = asyncio.Queue()

    async def signals(self) -> AsyncIterator[LanSignal]:
        while True:
            yield await self.queue.get()

    async def dump(self) -> Sequence[LanSignal]:
        return []

    async def poke(self, *, ip: str, mac: str | None) -> None: ...

    def say(self, number: int, **what: object) -> None:
        given: dict[str, object] = {
            "source": self.name,
            "seen_at_s": time.monotonic(),
            "mac": f"3c:12:aa:00:{number >> 8:02x}:{number & 255:02x}",
            "reach": "up",
            **what,
        }
        self.queue.put_nowait(Evidence(**given))  # type: ignore[arg-type]


class Rig:
    """An engine with its LAN and cloud."""

    def __init__(self, cloud: EdgeCloud, state_dir: Path, boot_id: str, **settings: object) -> None:
        self.cloud = cloud
        self.lan = ScriptedLan()
        self.state_dir = state_dir
        self.executor = ThreadPoolExecutor(1)
        self.engine = Engine(
            LocalRegistrySettings(rae=RAE, state_dir=str(state_dir), commit_interval_s=0.0, **settings),  # type: ignore[arg-type]
            [self.lan],
            connect=cloud.connect,
            executor=self.executor,
            random=Random(1).random,
            new_session=lambda: str(uuid4()),
            boot_id=boot_id,
            slots=asyncio.Semaphore(10),
        )
        self.skew_s = 0.0
        self.running = asyncio.create_task(self.engine.run())
        self.ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.engine.tick(time.monotonic() + self.skew_s)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self.running.done():
                self.running.result()
            assert time.monotonic() < deadline_s, f"never: {self.engine.summary()}"
            await asyncio.sleep(0.005)

    async def settled(self, revisions: int, timeout_s: float = 60.0) -> None:
        await self.until(lambda: self.engine.journal.committed >= revisions, timeout_s)
        await self.until(lambda: self.engine.journal.rows == 0, timeout_s)

    async def kill(self) -> None:
        """As kill -9 would: nothing is said, nothing is flushed."""
        self.ticking.cancel()
        self.running.cancel()
        await asyncio.gather(self.running, self.ticking, return_exceptions=True)
        self.executor.shutdown(wait=True)
        self.cloud.cut()

    async def end(self) -> bool:
        empty = await self.engine.drain(5.0)
        await self.running
        self.ticking.cancel()
        await asyncio.gather(self.ticking, return_exceptions=True)
        self.executor.shutdown(wait=True)
        return empty


@asynccontextmanager
async def rig(cloud: EdgeCloud, state_dir: Path, *, boot_id: str = "boot", **settings: object) -> AsyncIterator[Rig]:
    one = Rig(cloud, state_dir, boot_id, **settings)
    try:
        yield one
    finally:
        await one.kill()


def assert_nothing_lost(cloud: EdgeCloud, state_dir: Path) -> None:
    assert cloud.differences(read_devices(state_dir / DATABASE_NAME)) == []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths: the rules are held by the pure tests, here they only have to be wired."""
    monkeypatch.setattr("dmpd.local_registry.uplink.RETRY_FIRST_S", 0.02)
    monkeypatch.setattr("dmpd.local_registry.uplink.RETRY_MAX_S", 0.1)
    monkeypatch.setattr("dmpd.local_registry.outbox.PROBE_FIRST_S", 0.3)
    monkeypatch.setattr("dmpd.local_registry.outbox.PROBE_MAX_S", 1.0)
    monkeypatch.setattr("dmpd.local_registry.outbox.ABSENT_FIRST_S", 0.05)
    monkeypatch.setattr("dmpd.local_registry.engine.RETRY_STORE_FIRST_S", 0.05)
    monkeypatch.setattr("dmpd.local_registry.engine.RETRY_STORE_MAX_S", 0.1)
    init = Window.__init__

    def begin(self: Window, random: Callable[[], float]) -> None:
        init(self, random)
        self._probe_s = 0.3

    monkeypatch.setattr(Window, "__init__", begin)


async def changes(one: Rig, *, devices: int, rounds: int, pause_s: float = 0.0) -> int:
    for turn in range(rounds):
        for number in range(devices):
            one.lan.say(number, attributes={"turn": b"%d" % turn})
        await asyncio.sleep(pause_s)
        await one.until(one.lan.queue.empty)
        await one.until(lambda: not one.engine.registry.pending or one.engine.journal.trouble is not None)
    return devices * rounds


@async_test
async def test_begins_with_status_and_roster_then_rows_and_ends_with_disconnected(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=5, rounds=4)
        await one.settled(expected)
        assert cloud.statuses[0].state == "ready"
        assert type(cloud.kafka[1]).__name__ == "Roster"
        assert await one.end()
        assert [status.state for status in cloud.statuses][-2:] == ["draining", "disconnected"]
        assert cloud.wills == []
    assert_nothing_lost(cloud, tmp_path)
    assert committed_total(tmp_path / DATABASE_NAME) == expected
    assert Store(tmp_path).load().outbox_rows == 0


@async_test
async def test_numbers_of_delivered_rows_are_not_used_again_by_the_next_life(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    for turn in range(3):
        async with rig(cloud, tmp_path) as one:
            one.lan.say(0, attributes={"turn": b"%d" % turn})
            await one.until(lambda count=turn: one.engine.journal.committed > count)  # type: ignore[misc]
            await one.settled(turn + 1)
            await one.end()
    seqs = [seq for message in cloud.kafka if (seq := getattr(message, "seq", None)) is not None]
    assert len(set(seqs)) == len(seqs)


@async_test
async def test_durable_of_another_epoch_or_rae_is_not_believed(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reports = False
    async with rig(cloud, tmp_path) as one:
        await changes(one, devices=2, rounds=2)
        await one.until(lambda: one.engine.uplink.connected and len(one.engine.journal.window) == 4)
        durable = Durable(
            v=1, rae=RAE, session="rae", at=datetime.now(UTC), epoch=one.engine.journal.epoch - 1, stored=((1, 10**6),)
        )
        cloud.say(cloud.clients[0], durable)
        assert one.engine.journal.rows == 4
        cloud.say(cloud.clients[0], replace(durable, epoch=one.engine.journal.epoch))
        assert one.engine.journal.rows == 0


@async_test
async def test_runs_rise_and_the_will_carries_its_run(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        for connection in range(3):
            await one.until(lambda count=connection: len(cloud.statuses) > count and one.engine.uplink.connected)  # type: ignore[misc]
            cloud.cut()
            await one.until(lambda: not one.engine.uplink.connected)
    runs = [will.run for will in cloud.wills]  # type: ignore[union-attr]
    assert runs == sorted(set(runs))
    assert all(will.state == "lost" for will in cloud.wills)  # type: ignore[union-attr]
    async with rig(cloud, tmp_path) as one:
        await one.until(lambda: one.engine.uplink.connected)
        await one.until(lambda: cloud.statuses[-1].run > max(runs))


@pytest.mark.parametrize("receive_maximum", [1, 5, 1000])
@async_test
async def test_flights_stay_within_the_brokers_receive_maximum(tmp_path: Path, receive_maximum: int) -> None:
    cloud = EdgeCloud()
    cloud.receive_maximum = receive_maximum
    async with rig(cloud, tmp_path) as one:
        await one.settled(await changes(one, devices=40, rounds=3))
        assert cloud.clients[0].in_flight_max <= min(20, receive_maximum)
    assert_nothing_lost(cloud, tmp_path)


@async_test
async def test_broker_away_then_back(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reachable = False
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=50, rounds=4)
        await one.until(lambda: one.engine.journal.rows == expected)
        assert one.engine.problems() != []
        cloud.reachable = True
        await one.settled(expected)
        assert one.engine.problems() == []
    revs = [message.rev for message in cloud.kafka if isinstance(message, Change | Checkpoint)]
    assert len(revs) == expected
    assert_nothing_lost(cloud, tmp_path)


@pytest.mark.parametrize("seed", range(4))
@async_test
async def test_lossy_broker_and_lost_durables_lose_nothing(tmp_path: Path, seed: int) -> None:
    cloud = EdgeCloud(seed)
    cloud.durable_loss = 0.3
    async with rig(cloud, tmp_path) as one:
        for _ in range(4):
            await changes(one, devices=10, rounds=3)
            cloud.cut()
            await one.until(lambda: one.engine.uplink.connected)
        await one.settled(120, 20.0)
    assert_nothing_lost(cloud, tmp_path)


@pytest.mark.parametrize("seed", range(3))
@async_test
async def test_what_a_forgetful_broker_makes_stale_a_checkpoint_heals(tmp_path: Path, seed: int) -> None:
    cloud = EdgeCloud(seed)
    cloud.loses = cloud.durable_loss = 0.2
    async with rig(cloud, tmp_path, checkpoint_interval_s=1.0) as one:
        for _ in range(3):
            await changes(one, devices=10, rounds=3)
            cloud.cut()
            await one.until(lambda: one.engine.uplink.connected)
        cloud.loses = 0.0
        await one.settled(60, 20.0)
        await one.until(lambda: cloud.differences(read_devices(tmp_path / DATABASE_NAME)) == [])


@async_test
async def test_bridge_away_is_not_delivered(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.bridge_there = False
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=10, rounds=3)
        await one.until(lambda: one.engine.journal.committed == expected and one.engine.uplink.connected)
        assert one.engine.journal.rows == expected
        cloud.bridge_there = True
        await one.settled(expected)
        await one.until(lambda: {status.state for status in cloud.statuses} == {"ready"})
        await one.until(lambda: cloud.rosters != [])
    assert_nothing_lost(cloud, tmp_path)


@async_test
async def test_refused_rows_wait_for_the_broker_to_relent(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.refuse_code = 0x97
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=3, rounds=2)
        await one.until(lambda: one.engine.journal.committed == expected and one.engine.uplink.connected)
        cloud.refuse_code = 0
        await one.settled(expected)
    assert_nothing_lost(cloud, tmp_path)


@async_test
async def test_killed_between_commit_and_durable_sends_again(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reports = False
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=20, rounds=4)
        await one.until(lambda: one.engine.journal.committed == expected)
    cloud.reports = True
    async with rig(cloud, tmp_path) as one:
        await one.until(lambda: one.engine.uplink.connected)
        await one.until(lambda: one.engine.journal.rows == 0)
        assert one.engine.journal.epoch == cloud.statuses[0].epoch, "same boot, same epoch"
    assert_nothing_lost(cloud, tmp_path)


@async_test
async def test_another_boot_restamps_what_waits_and_puts_a_checkpoint_behind(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reachable = False
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=3, rounds=3)
        await one.until(lambda: one.engine.journal.committed == expected)
        first = one.engine.journal.epoch
    cloud.reachable = True
    async with rig(cloud, tmp_path, boot_id="another boot") as one:
        await one.until(lambda: one.engine.uplink.connected)
        await one.until(lambda: one.engine.journal.rows == 0)
        assert one.engine.journal.epoch > first
    assert {message.epoch for message in cloud.kafka} == {one.engine.journal.epoch}  # type: ignore[union-attr]
    for device in read_devices(tmp_path / DATABASE_NAME):
        messages = [message for message in cloud.kafka if message.session == device.session]
        assert isinstance(messages[-1], Checkpoint)
        assert len(messages) == 4


@async_test
async def test_database_damaged_at_rest_costs_an_epoch_and_no_session_id(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await one.settled(await changes(one, devices=4, rounds=2))
        first = one.engine.journal.epoch
        await one.end()
    sessions = {device.session for device in read_devices(tmp_path / DATABASE_NAME)}
    (tmp_path / DATABASE_NAME).write_bytes(b"garbage" * 10_000)
    async with rig(cloud, tmp_path) as one:
        await changes(one, devices=4, rounds=1)
        await one.until(lambda: one.engine.uplink.connected)
        await one.until(lambda: one.engine.journal.rows == 0)
        assert one.engine.journal.epoch > first
        assert set(one.engine.registry.devices) == sessions
    assert any(isinstance(message, Event) and message.code == "store_rebuilt" for message in cloud.kafka)


@async_test
async def test_database_damaged_while_running_is_rebuilt_from_memory(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await one.settled(await changes(one, devices=4, rounds=2))
        first = one.engine.journal.epoch
        async with one.engine.journal._lock:  # no transaction of the journal's own may be under way
            store = one.engine.journal._opened()
            store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            content = bytearray((tmp_path / DATABASE_NAME).read_bytes())
            content[100:] = b"\xee" * (len(content) - 100)
            (tmp_path / DATABASE_NAME).write_bytes(content)
            store._db.execute("PRAGMA cache_size=0")
            store._db.execute("PRAGMA shrink_memory")
        await changes(one, devices=4, rounds=1)
        await one.until(lambda: one.engine.journal.epoch > first)
        await one.until(lambda: one.engine.uplink.connected and one.engine.journal.rows == 0)
        await one.until(lambda: cloud.statuses[-1].epoch == one.engine.journal.epoch)
        assert any(".damaged-" in name for name in os.listdir(tmp_path))  # noqa: PTH208 - a test may look
        devices = {device.session: device.rev for device in read_devices(tmp_path / DATABASE_NAME)}
        assert len(devices) == 4

        def last_revs() -> dict[str, int]:
            return {message.session: message.rev for message in cloud.kafka if isinstance(message, Checkpoint | Change)}

        await one.until(lambda: last_revs() == devices)


@async_test
async def test_full_disk_is_degraded_and_heals(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await one.settled(await changes(one, devices=4, rounds=1))
        db = one.engine.journal._opened()._db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={pages}")
        for number in range(4):
            one.lan.say(number, attributes={f"big{turn}": b'"' + b"x" * 9000 + b'"' for turn in range(3)})
        await one.until(lambda: one.engine.journal.trouble is not None)
        assert any("full" in problem for problem in one.engine.problems())
        for number in range(4):
            one.lan.say(number, attributes={"late": b"true"})
        db.execute("PRAGMA max_page_count=100000")
        await one.until(lambda: one.engine.journal.trouble is None)
        await one.settled(8)
    assert_nothing_lost(cloud, tmp_path)
    assert all("late" in device.record.attributes for device in read_devices(tmp_path / DATABASE_NAME))


@async_test
async def test_outbox_over_its_bound_becomes_checkpoints(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reachable = False
    async with rig(cloud, tmp_path, outbox=OutboxSettings(rows_max=100)) as one:
        await changes(one, devices=10, rounds=40)
        await one.until(lambda: one.engine.journal.rows <= 100)
        assert one.engine.journal.committed == 400
        cloud.reachable = True
        await one.settled(400)
    assert_nothing_lost(cloud, tmp_path)
    assert len([message for message in cloud.kafka if hasattr(message, "rev")]) <= 110


@async_test
async def test_session_that_came_and_went_offline_is_never_spoken_of(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reachable = False
    async with rig(cloud, tmp_path, presence=PresenceSettings(leave_after_s=1)) as one:
        await changes(one, devices=2, rounds=1)
        one.lan.say(0, gone=True, reach=None)
        await one.until(lambda: len(one.engine.registry.devices) == 1, 15.0)
        cloud.reachable = True
        await one.until(lambda: one.engine.uplink.connected and one.engine.journal.rows == 0)
    assert len({message.session for message in cloud.kafka}) == 2
    assert not any(isinstance(message, Closed) for message in cloud.kafka)
    assert len(read_devices(tmp_path / DATABASE_NAME)) == 1


@async_test
async def test_checkpoints_and_rosters_come_each_interval_but_not_into_a_void(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path, checkpoint_interval_s=1.0, status_interval_s=1.0) as one:
        await one.settled(await changes(one, devices=10, rounds=1))
        at_rest = len(cloud.kafka)
        await one.until(lambda: len(cloud.rosters) >= 3 and len(cloud.statuses) >= 3)
        periodic = [message for message in cloud.kafka[at_rest:] if isinstance(message, Checkpoint)]
        assert {message.session for message in periodic} == set(one.engine.registry.devices)
        assert all(message.seq is None for message in periodic)
        cloud.reports = False
        one.lan.say(0, attributes={"into": b'"the void"'})
        await one.until(lambda: one.engine.journal.window.holding_back(time.monotonic()))
        silent = len([message for message in cloud.kafka if getattr(message, "seq", None) is None])
        await asyncio.sleep(1.2)
        later = len([message for message in cloud.kafka if getattr(message, "seq", None) is None])
        assert later == silent, "checkpoints pile up though nothing becomes durable"


@async_test
async def test_lan_down_is_one_event_and_no_device_goes_offline(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path, presence=PresenceSettings(grace_s=0.05)) as one:
        await one.settled(await changes(one, devices=3, rounds=1))
        one.lan.queue.put_nowait(LanDown("scripted"))
        for number in range(3):
            one.lan.say(number, reach="down")
        await asyncio.sleep(0.3)
        one.lan.queue.put_nowait(LanUp("scripted"))
        for number in range(3):
            one.lan.say(number)
        await one.until(
            lambda: [message.code for message in cloud.kafka if isinstance(message, Event)] == ["lan_down", "lan_up"]
        )
    assert {device.record.state for device in read_devices(tmp_path / DATABASE_NAME)} == {"online"}


@async_test
async def test_broker_that_never_answers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmpd.local_registry.uplink.UNANSWERED_MAX_S", 0.3)
    cloud = EdgeCloud()
    cloud.answering = False
    async with rig(cloud, tmp_path) as one:
        await one.until(lambda: cloud.connects >= 2)
        cloud.answering = True
        await one.settled(await changes(one, devices=2, rounds=2))
    assert_nothing_lost(cloud, tmp_path)


@async_test
async def test_taken_over_waits_long_before_it_comes_back(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await one.until(lambda: one.engine.uplink.connected)
        for client in cloud.clients:
            client.end("session taken over", 0x8E)
        await one.until(lambda: not one.engine.uplink.connected)
        await asyncio.sleep(0.3)
        assert cloud.connects == 1
        assert "taken over" in str(one.engine.problems())


@async_test
async def test_drain_makes_up_for_a_lost_durable(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.durable_loss = 1.0
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=2, rounds=2)
        await one.until(lambda: one.engine.journal.committed == expected and one.engine.uplink.connected)
        await one.until(lambda: len(one.engine.journal.window) == one.engine.journal.rows > 0)
        cloud.durable_loss = 0.0
        began_s = time.monotonic()
        assert await one.engine.drain(15.0)
        await one.running
        assert time.monotonic() - began_s < 10
    assert_nothing_lost(cloud, tmp_path)


@async_test
async def test_drain_without_durables_ends_in_time_and_keeps_the_rows(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    cloud.reports = False
    async with rig(cloud, tmp_path) as one:
        expected = await changes(one, devices=2, rounds=2)
        await one.until(lambda: one.engine.journal.committed == expected and one.engine.uplink.connected)
        began_s = time.monotonic()
        assert not await one.engine.drain(0.5)
        await one.running
        assert time.monotonic() - began_s < 3
    cloud.reports = True
    async with rig(cloud, tmp_path) as one:
        await one.until(lambda: one.engine.uplink.connected and one.engine.journal.rows == 0)
    assert_nothing_lost(cloud, tmp_path)
