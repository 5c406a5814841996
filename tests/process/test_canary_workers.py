"""The crowd's processes under their runner: what becomes of the others when one of them is killed."""

import asyncio
import os
import signal
import time
import uuid

import pytest

from dmpd.canary.crowd import Job, Told
from dmpd.canary.plan import Plan
from dmpd.canary.workers import CrowdFailedError, Workers
from tests.support.aio import async_test, until

PLAN = Plan(run=str(uuid.UUID(int=1)), seed=1, epoch=1, first=1, last=4, changes=4, started_ms=1)


def job(first, last, folder):
    """Of clients that never get in: nobody is asked for anything."""
    return Job(
        plan=PLAN.part(first, last),
        whole_first=1,
        whole_last=4,
        host="127.0.0.1",
        port=1,
        ca_file=str(folder / "ca.crt"),
        certificates_dir=str(folder),
        ramp="herd",
        ramp_s=1.0,
        profile="steady",
        flash_s=20.0,
        began_ns=time.monotonic_ns(),
    )


@pytest.mark.parametrize("dead", [0, 1])
@async_test
async def test_one_that_is_killed_in_the_flash_fails_the_order_and_the_next_one_too(tmp_path, dead):
    workers = Workers([job(1, 2, tmp_path), job(3, 4, tmp_path)])
    try:
        await workers.start()
        flash = asyncio.ensure_future(workers.order("flash", float))
        streams = [worker._process.stdout for worker in workers._workers]
        await until(lambda: all(stream._waiter for stream in streams), "both are listened to")
        os.kill(workers._workers[dead]._process.pid, signal.SIGKILL)
        with pytest.raises(CrowdFailedError, match="ended while it should flash"):
            await flash
        with pytest.raises(CrowdFailedError):
            await asyncio.wait_for(workers.order("report", Told), 10)
    finally:
        await workers.stop()
