"""An engine over a LAN in memory: what a DHCP ACK sets going, and what an ESN is worth."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

from dmpd.local_registry.engine import Engine
from dmpd.local_registry.settings import LanSettings, LocalRegistrySettings, PresenceSettings
from dmpd.local_registry.sources.memory import MemoryDevice, MemoryLan
from dmpd.local_registry.sources.memory_ssdp import MemoryEther, MemoryResponder
from dmpd.local_registry.sources.oui import OuiTable
from dmpd.local_registry.store import DATABASE_NAME, read_devices
from dmpd.model.messages import Checkpoint, Closed, Event
from tests.support.aio import async_test
from tests.support.edge_cloud import EdgeCloud
from tests.support.ssdp_device import mdx_reply

WAIT_S = 2.0
"""Four times the daemon's own, so that a busy machine is not taken for the wait."""
GRACE_S = 0.05
VENDORS = OuiTable(b"3c12aa Aster\n")


class Rig:
    """An engine, its LAN and its cloud."""

    def __init__(self, state_dir: Path, *, esn_wait_s: float = WAIT_S, grace_s: float = 60.0) -> None:
        self.cloud = EdgeCloud()
        self.state_dir = state_dir
        self.lan = MemoryLan()
        self.ether = MemoryEther(self.lan)
        self.executor = ThreadPoolExecutor(1)
        self.sessions_made = 0
        self.engine = Engine(
            LocalRegistrySettings(
                rae="R1",
                state_dir=str(state_dir),
                commit_interval_s=0.0,
                lan=LanSettings(interface="br-lan", esn_wait_s=esn_wait_s),
                presence=PresenceSettings(grace_s=grace_s),
            ),
            [self.lan.leases, self.lan.neighbours, self.ether.source],
            connect=self.cloud.connect,
            executor=self.executor,
            random=Random(1).random,
            new_session=self._new_session,
            boot_id="boot",
            slots=asyncio.Semaphore(10),
            vendor_of=VENDORS.vendor_of,
        )

    def _new_session(self) -> str:
        self.sessions_made += 1
        return str(uuid4())

    def device(self, number: int, *, esn: str | None = None) -> MemoryDevice:
        """A device that is not plugged in yet; with an ``esn`` it answers searches."""
        mac, ip = f"3c:12:aa:00:00:{number:02x}", f"10.77.1.{number}"
        device = self.lan.add(mac, ip=ip, hostname=f"d{number}", port=f"lan{number}")
        if esn is not None:
            self.ether.responders.append(MemoryResponder(device=device, datagrams=[mdx_reply(esn)]))
        return device

    def esns(self) -> list[str | None]:
        return [device.record.esn for device in self.engine.registry.devices.values()]

    def closed(self) -> list[str]:
        return [message.reason for message in self.cloud.kafka if isinstance(message, Closed)]

    async def until(self, condition, timeout_s: float = 60.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"never: {self.engine.summary()}, {self.esns()}"
            await asyncio.sleep(0.005)


@asynccontextmanager
async def rig(state_dir: Path, **settings: float) -> AsyncIterator[Rig]:
    one = Rig(state_dir, **settings)
    running = asyncio.create_task(one.engine.run())
    try:
        await one.until(lambda: one.engine.opened and one.engine.uplink.connected)
        # The start's own searches are over: what is answered from now on was asked at the lease.
        await one.until(lambda: one.ether.source._open and len(one.ether.source._searches_at_s) == 1)
        await one.until(lambda: one.ether.source._searches_at_s[0] > time.monotonic() + 30)
        yield one
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        one.executor.shutdown(wait=True)


@async_test
async def test_a_new_device_is_onboarded_with_its_esn_and_vendor_in_its_first_row(tmp_path):
    async with rig(tmp_path) as one:
        began_s = time.monotonic()
        one.lan.plug(one.device(1, esn="SIMTV-0001"))
        await one.until(lambda: [m for m in one.cloud.kafka if isinstance(m, Checkpoint)] != [])
        assert time.monotonic() - began_s < WAIT_S
        first = next(m for m in one.cloud.kafka if isinstance(m, Checkpoint))
        assert (first.record.esn, first.record.esn_source) == ("SIMTV-0001", "mdx")
        (interface,) = first.record.interfaces
        assert (interface.oui_vendor, interface.mac_random) == ("Aster", False)
        (stored,) = read_devices(tmp_path / DATABASE_NAME)
        assert stored.record.esn == "SIMTV-0001"


@async_test
async def test_a_device_without_an_esn_is_onboarded_when_the_wait_is_over(tmp_path):
    async with rig(tmp_path) as one:
        began_s = time.monotonic()
        one.lan.plug(one.device(1))
        await one.until(lambda: one.esns() == [None])
        assert WAIT_S <= time.monotonic() - began_s < WAIT_S + 3


@async_test
async def test_nobody_waits_where_nobody_is_told_to(tmp_path):
    async with rig(tmp_path, esn_wait_s=0.0) as one:
        began_s = time.monotonic()
        one.lan.plug(one.device(1))
        await one.until(lambda: one.esns() == [None])
        assert time.monotonic() - began_s < WAIT_S


async def known_and_unplugged(one: Rig) -> str:
    """A device comes, is known by its ESN, and its cable is pulled; returns its session."""
    old = one.device(1, esn="SIMTV-0001")
    one.lan.plug(old)
    await one.until(lambda: one.esns() == ["SIMTV-0001"])
    (session,) = one.engine.registry.devices
    # Its port is seen only once it settled, and then its leaving.
    await one.until(lambda: one.engine.registry.devices[session].record.interfaces[0].port == "lan1")
    one.lan.unplug(old)
    await one.until(lambda: one.engine.registry.devices[session].record.state == "offline")
    return session


async def swap_mac(one: Rig) -> str:
    """A device goes, and comes back under another MAC with its ESN; returns its session before."""
    session = await known_and_unplugged(one)
    identity = one.engine.registry.identity
    await one.until(lambda: time.monotonic() - identity._seen_s[session] > GRACE_S)
    one.lan.plug(one.device(2, esn="SIMTV-0001"))
    await one.until(
        lambda: any(
            one_device.record.esn == "SIMTV-0001" and one_device.record.interfaces[0].mac.endswith("02")
            for one_device in one.engine.registry.devices.values()
        )
    )
    return session


@async_test
async def test_a_known_device_under_a_new_mac_keeps_its_session_and_makes_no_other(tmp_path):
    async with rig(tmp_path, grace_s=GRACE_S) as one:
        session = await swap_mac(one)
        await one.until(lambda: one.engine.journal.rows == 0)
        assert (list(one.engine.registry.devices), one.sessions_made) == ([session], 1)
        assert one.closed() == []


@async_test
async def test_another_mac_in_a_pulled_cables_place_is_the_same_device_at_once(tmp_path):
    async with rig(tmp_path, grace_s=60.0) as one:
        session = await known_and_unplugged(one)
        one.lan.plug(one.device(2, esn="SIMTV-0001"))
        await one.until(lambda: one.engine.registry.devices[session].record.state == "online")
        assert (list(one.engine.registry.devices), one.sessions_made) == ([session], 1)
        assert [m.code for m in one.cloud.kafka if isinstance(m, Event)] == []


@async_test
async def test_without_the_wait_it_is_another_session_first_that_ends_as_merged(tmp_path):
    async with rig(tmp_path, grace_s=GRACE_S, esn_wait_s=0.0) as one:
        session = await swap_mac(one)
        await one.until(lambda: list(one.engine.registry.devices) == [session])
        assert one.sessions_made == 2


@async_test
async def test_an_esn_of_a_living_device_is_not_stolen(tmp_path):
    async with rig(tmp_path) as one:
        one.lan.plug(one.device(1, esn="SIMTV-0001"))
        await one.until(lambda: one.esns() == ["SIMTV-0001"])
        (session,) = one.engine.registry.devices
        one.lan.plug(one.device(2, esn="SIMTV-0001"))
        await one.until(lambda: [m for m in one.cloud.kafka if isinstance(m, Event)] != [])
        assert [m.code for m in one.cloud.kafka if isinstance(m, Event)] == ["identity_conflict"]
        assert one.engine.registry.devices[session].record.esn == "SIMTV-0001"
        assert sorted(one.esns(), key=str) == [None, "SIMTV-0001"]


@async_test
async def test_who_waits_when_all_ends_is_not_lost(tmp_path):
    async with rig(tmp_path, esn_wait_s=5.0) as one:
        one.lan.plug(one.device(1))
        await one.until(lambda: one.engine._waiting._held != {})
        await one.engine.drain(2.0)
        assert [stored.record.interfaces[0].mac for stored in read_devices(tmp_path / DATABASE_NAME)] == [
            "3c:12:aa:00:00:01"
        ]
