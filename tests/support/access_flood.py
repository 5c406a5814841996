"""A RAE that floods one session, and users who want to see and command it all the time: what they got, and when."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

from dmpd.runtime.errors import UnavailableError
from tests.support.grants import S1

INFO = f"dmp/v1/R1/{S1}/info"


class Flood:
    """A RAE that says 1,000 messages a second of one session, each with its time; and commands, two a second."""

    def __init__(self, rig, topic=INFO, *, per_s=1000):
        self._rig = rig
        self._topic = topic
        self._per_s = per_s
        self.sent = 0

    async def __aenter__(self):
        self._rae = await self._rig.party("R1").connect()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._rae.client.disconnect()

    async def _run(self):
        begun_s = time.monotonic()
        while True:
            due = int((time.monotonic() - begun_s) * self._per_s)
            while self.sent < due:
                self._rae.client.publish(self._topic, b"%.6f" % time.time(), qos=0)
                self.sent += 1
            await asyncio.sleep(0.005)


class Watcher:
    """A user who wants to see the session and command it, all the time, whatever he is told."""

    def __init__(self, rig, user="u-a"):
        self._rig = rig
        self.user = user
        self.heard_at: list[float] = []
        self.accepted_at: list[float] = []
        self.party = None

    def newest(self):
        """Since when he has both heard and commanded; 0: not yet."""
        return min(self.heard_at[-1], self.accepted_at[-1]) if self.heard_at and self.accepted_at else 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self):
        while True:
            self.party = party = self._rig.party(self.user)
            party.on_hear = lambda topic: self.heard_at.append(time.time())
            try:
                await party.connect(clean_start=False, session_expiry_s=600)
                while True:
                    await party.subscribe(INFO)
                    code = await party.publish(f"dmp/v1/R1/{S1}/cmd/{self.user}", b"?")
                    if code == 0:
                        self.accepted_at.append(time.time())
                    await asyncio.sleep(0.02)
            except UnavailableError:
                await asyncio.sleep(0.02)
            finally:
                await party.gone()


def last(watcher):
    """When the user was last given anything."""
    return max([0.0, *watcher.heard_at[-1:], *watcher.accepted_at[-1:]])


async def hears_and_commands(watcher, *, timeout_s=60.0):
    """Wait until he does both."""
    begun = time.time()
    while begun > watcher.newest():
        assert time.time() - begun < timeout_s, f"{watcher.user} does not hear and command"
        await asyncio.sleep(0.02)


async def late_s(watcher, over_at):
    """How long after ``over_at``, the end of what he was granted, he was given the last thing. Waits."""
    await asyncio.sleep(max(0.0, over_at - time.time()))
    await quiet(watcher)
    return last(watcher) - over_at


async def quiet(watcher, *, for_s=2.0, timeout_s=60.0):
    """Wait until he gets nothing any more."""
    begun = time.time()
    while time.time() - last(watcher) < for_s:
        assert time.time() - begun < timeout_s, f"{watcher.user} goes on"
        await asyncio.sleep(0.1)


@asynccontextmanager
async def publishing(rig):
    """A RAE that says something each 10 ms, all of which the broker takes; yields the seconds that each PUBACK took."""
    rae = await rig.party("R1").connect()
    waited: list[float] = []

    async def publish():
        while True:
            begun_s = time.perf_counter()
            assert await rae.publish("dmp/v1/R1/rae/info") == 0
            waited.append(time.perf_counter() - begun_s)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(publish())
    try:
        yield waited
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rae.gone()
