"""200 RAEs on a real Mosquitto whose bridge is away, as it is while Kafka is: how much lies in the broker's queue."""

import asyncio
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from dmpd.local_registry import outbox
from dmpd.local_registry.engine import Engine
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.local_registry.sources.simulated import SimulatedLan
from dmpd.local_registry.unproven import MARKS_FROM
from dmpd.runtime.mqtt import MqttClient
from tests.support.aio import async_test, until
from tests.support.edge_bridge import EdgeBridge
from tests.support.services import MosquittoService, public_folder, start_mosquitto

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(500)]

RAES = 200
PROMISED = 70
FASTER = 20
"""Seconds of the rules that are one here, so that ten minutes are thirty seconds."""
OUTAGE_S = 600 / FASTER
DEVICES = 8
CHECKPOINT_INTERVAL_S = 2.5
"""Nearly a hundred checkpoints of each RAE in the outage, if nothing held them back: as if it had a hundred devices."""
RATES_PER_S = (0.0, 0.2, 1.5)
"""Changes of a RAE: none, a few, about what the window takes in the outage."""


@pytest.fixture
def stores() -> Iterator[Path]:
    """In memory if there is room: two hundred stores that flush each commit would wait for one disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="dmpd-test-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@asynccontextmanager
async def fleet(broker: MosquittoService, folder: Path) -> AsyncIterator[list[Engine]]:
    slots, random = asyncio.Semaphore(20), Random(8)
    with ThreadPoolExecutor(4) as executor:
        engines = [
            Engine(
                LocalRegistrySettings(
                    rae=f"R{number:03}",
                    state_dir=str(folder / f"R{number:03}"),
                    mqtt=broker.settings(f"R{number:03}"),
                ),
                [SimulatedLan(devices=DEVICES, rate_per_s=RATES_PER_S[number % 3], seed=f"s{number}")],
                connect=MqttClient.connect,
                executor=executor,
                random=random.random,
                new_session=lambda: str(uuid.uuid4()),
                boot_id="boot",
                slots=slots,
            )
            for number in range(RAES)
        ]
        for one in engines:
            (folder / one.rae).mkdir()
        tasks = [asyncio.create_task(one.run()) for one in engines] + [asyncio.create_task(ticks(engines))]
        try:
            yield engines
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def ticks(engines: list[Engine]) -> None:
    while True:
        for one in engines:
            one.tick(time.monotonic())
        await asyncio.sleep(0.25)


def hasten(engines: list[Engine]) -> None:
    """From here on the periodic messages come as often as the rules' seconds pass."""
    for one in engines:
        one._settings = replace(
            one._settings, checkpoint_interval_s=CHECKPOINT_INTERVAL_S, status_interval_s=60 / FASTER
        )


async def all_taken(bridge: EdgeBridge) -> None:
    """Until the broker's queue is empty: then only what the RAEs still send comes, some tens in a second."""
    before, steps = 0, []
    while not steps or max(steps[-2:]) > RAES // 4:
        await asyncio.sleep(0.5)
        steps.append(bridge.kept.total() - before)
        before = bridge.kept.total()


@async_test
async def test_ten_minutes_without_kafka_leave_seventy_messages_of_each_rae(
    stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PROBE_FIRST_S", outbox.PROBE_FIRST_S / FASTER)
    monkeypatch.setattr(outbox, "PROBE_MAX_S", outbox.PROBE_MAX_S / FASTER)
    with public_folder() as folder, start_mosquitto(folder) as broker:
        settings = broker.settings("svc-bridge")
        bridge = EdgeBridge()
        await bridge.open(settings)
        async with fleet(broker, stores) as engines:
            await until(lambda: all(one.uplink.connected for one in engines), "all are connected", 120)
            await until(lambda: all(one.journal.committed >= DEVICES for one in engines), "all devices are known", 120)
            await until(lambda: all(one.journal.rows < DEVICES for one in engines), "most of it is durable", 120)
            await bridge.close()
            hasten(engines)
            await asyncio.sleep(OUTAGE_S)
            rows = sum(one.journal.rows for one in engines)

            bridge = EdgeBridge()
            bridge.holding = True
            await bridge.open(settings)
            await all_taken(bridge)
            assert len(bridge.kept) == RAES
            assert max(bridge.kept.values()) <= PROMISED, bridge.kept.most_common(5)
            assert bridge.kept.total() > RAES * 15, "the outage was none"

            bridge.release()
            await until(lambda: all(one.journal.rows < 20 for one in engines), f"{rows} rows become durable", 120)
            copies = Counter(
                (one.rae, one.seq) for one in bridge.taken if 0 < (getattr(one, "seq", 0) or 0) < MARKS_FROM
            )
            assert copies.total() - len(copies) <= RAES * 10, "a storm of copies"
        await bridge.close()
