"""The journal's edges: what comes after its close, and what a purge leaves."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from dmpd.local_registry.journal import Journal, utc_now
from dmpd.local_registry.outbox import Row
from dmpd.local_registry.registry import Registry
from dmpd.local_registry.settings import OutboxSettings, PresenceSettings
from dmpd.local_registry.source import Evidence
from dmpd.local_registry.store import Commit, DeviceWrite, Store
from tests.support.aio import async_test


def journal(state_dir: Path, executor: ThreadPoolExecutor) -> tuple[Registry, Journal]:
    registry = Registry("R1", rules=PresenceSettings(), new_session=lambda: str(uuid4()), random=lambda: 0.5)
    opened = Journal(
        registry, state_dir, bounds=OutboxSettings(), executor=executor, random=lambda: 0.5, boot_id="boot"
    )
    return registry, opened


def see(registry: Registry, number: int) -> None:
    evidence = Evidence(source="t", seen_at_s=0.0, mac=f"3c:12:aa:00:00:{number:02x}", reach="up")
    registry.observe(evidence, now_s=time.monotonic(), at=utc_now())


@async_test
async def test_late_calls_after_close_are_refused_and_leave_the_database_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        registry, one = journal(tmp_path, executor)
        await one.open()
        see(registry, 1)
        assert await one.commit()
        await one.close()
        see(registry, 2)
        assert not await one.commit()
        await one.tidy(final=True)
        assert not await one.refill()
        names = {path.name for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))}
    assert names == {"registry.db", "identity.json"}
    assert Store(tmp_path).load().outbox_rows == 1


@async_test
async def test_cancelled_commit_ends_before_anything_else_touches_the_store(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as executor:
        registry, one = journal(tmp_path, executor)
        await one.open()
        for number in range(20):
            see(registry, number)
            commit = asyncio.create_task(one.commit())
            await asyncio.sleep(0)
            commit.cancel()
            await asyncio.gather(commit, return_exceptions=True)
        assert await one.commit()
        assert one.trouble is None
        await one.close()
    assert len(Store(tmp_path).load().devices) == 20


@async_test
async def test_rows_are_frozen_on_disk_before_they_are_loaded(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        registry, one = journal(tmp_path, executor)
        await one.open()
        see(registry, 1)
        await one.commit()
        assert one.frozen_through == 0
        one.sending = True
        assert await one.refill()
        await one.close()
        assert Store(tmp_path).load().sent_through >= one.window.loaded_through > 0
        _, again = journal(tmp_path, executor)
        await again.open()
        assert again.frozen_through >= one.window.loaded_through
        await again.close()


def test_purge_forgets_the_long_closed_and_keeps_the_sum(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [f"00000000-0000-0000-0000-{number:012d}" for number in range(4)]
    store.commit(
        Commit(
            devices=[
                DeviceWrite(ids[0], 1, 5, 1, b"{}", "left", 100),
                DeviceWrite(ids[1], 1, 7, 1, b"{}", "left", 900),
                DeviceWrite(ids[2], 1, 9, 1, b"{}"),
                DeviceWrite(ids[3], 1, 11, 1, b"{}", "left", 100),
            ],
            rows=[Row(1, ids[3], "closed", 1, 0, b"x")],
        )
    )
    store.purge(500)
    store.purge(500)
    assert store.committed_total() == 32
    store.commit(Commit(durable=[1]))
    store.purge(500)
    assert store.committed_total() == 32
    assert store.commit(Commit(forgotten=[ids[1]])) == (0, 0)
    assert store.committed_total() == 25
