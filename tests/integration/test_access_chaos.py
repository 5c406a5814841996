"""The checker of access: grants come and go for 50 users over 200 sessions while all parts are killed and frozen.

Nobody is given anything that was sent outside of a grant and a second (longer only where the daemon or the broker was
away: until they are back; what waited in the sockets of a frozen broker counts from when that reads it), and nobody is
refused inside one. ``make chaos`` runs ten minutes; ``CHAOS_S`` and
``CHAOS_SEED`` set length and seed.
"""

import asyncio
import os
import random
import signal
import time
import uuid
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta

import psycopg
import pytest

from dmpd.access import store
from dmpd.access.store import Wish
from dmpd.lab.postgresql import PostgreSQL
from dmpd.lab.server import ServerError
from dmpd.model.grant_request import GrantRefusedError
from dmpd.runtime.database import DatabaseUnreachableError
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.settings import DatabaseSettings
from tests.support import yardstick
from tests.support.access import access_rig
from tests.support.access_history import History, Outage, Window
from tests.support.services import public_folder, start

CHAOS_S = float(os.environ.get("CHAOS_S", "60"))
SEED = int(os.environ.get("CHAOS_SEED", str(uuid.uuid4().int % 1_000_000)))
USERS, RAES, PER_RAE = 50, 10, 20
SESSIONS = [(f"R{n}", str(uuid.UUID(int=n * 1000 + m))) for n in range(RAES) for m in range(PER_RAE)]
GRANTS_PER_S = 8.0
EACH_S = 1.0
"""Every session says something so often."""
NOT_AUTHORIZED = 0x87

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(CHAOS_S + 300)]


def info(rae, session):
    return f"dmp/v1/{rae}/{session}/info"


class User:
    """Subscribes to what he was granted last, again and again, and notes what he gets and what is refused him."""

    def __init__(self, rig, name, history):
        self.name = name
        self.wants: dict[tuple[str, str], float] = {}
        self._rig = rig
        self._history = history

    async def run(self):
        while True:
            party = self._rig.party(self.name)
            party.on_message = self._hear
            with suppress(UnavailableError, TimeoutError):
                try:
                    await party.connect(clean_start=False, session_expiry_s=60)
                    while not party.client.closed.done():
                        await self._look(party)
                        await asyncio.sleep(0.2)
                finally:
                    await party.gone()
            await asyncio.sleep(0.1)

    async def _look(self, party):
        for rae, session in [key for key, until in self.wants.items() if time.time() < until]:
            asked = time.time()
            async with asyncio.timeout(10):
                [code] = await party.subscribe(info(rae, session))
            if code == NOT_AUTHORIZED and not party.client.closed.done():
                self._history.refused[self.name, session].append(asked)

    def _hear(self, topic, payload):
        self._history.given[self.name, topic.split("/")[3]].append(float(payload))


class Rae:
    """Says something of each of its sessions, with the time of sending."""

    def __init__(self, rig, name):
        self.name = name
        self._rig = rig

    async def run(self):
        own = [session for rae, session in SESSIONS if rae == self.name]
        while True:
            party = self._rig.party(self.name)
            with suppress(UnavailableError, TimeoutError):
                try:
                    await party.connect()
                    while not party.client.closed.done():
                        for session in own:
                            party.client.publish(info(self.name, session), b"%.6f" % time.time(), qos=0)
                            await asyncio.sleep(EACH_S / len(own))
                finally:
                    await party.gone()
            await asyncio.sleep(0.2)


class Granter:
    """Grants and revokes at random; what the database took is history."""

    def __init__(self, rig, users, history, dice):
        self._rig = rig
        self._users = users
        self._history = history
        self._dice = dice
        self._live: dict[str, tuple[tuple[str, str], Window]] = {}

    async def run(self):
        while True:
            await asyncio.sleep(self._dice.expovariate(GRANTS_PER_S))
            with suppress(psycopg.Error, DatabaseUnreachableError):
                await asyncio.to_thread(self._revoke if self._dice.random() < 0.3 and self._live else self._grant)

    def _grant(self):
        user = self._dice.choice(self._users)
        rae, session = self._dice.choice(SESSIONS)
        wish = Wish(
            user=user.name,
            rae=rae,
            session=session,
            level=self._dice.choice(["read", "command"]),
            lasts=timedelta(seconds=self._dice.uniform(3, 12)),
            by="op-chaos",
            why="chaos",
        )
        with self._rig.connection() as connection:
            made = store.grant(connection, wish, hours_max=1)
        window = Window(made.starts_at.timestamp(), made.ends_at.timestamp(), revoked=False)
        key = user.name, session
        self._live[made.id] = key, window
        self._history.windows[key].append(window)
        user.wants[rae, session] = window.end

    def _revoke(self):
        chosen = self._dice.choice(list(self._live))
        key, window = self._live.pop(chosen)
        if window.end < time.time():
            return
        with suppress(GrantRefusedError), self._rig.connection() as connection:
            ended = store.revoke(connection, chosen, by="op-chaos")
            windows = self._history.windows[key]
            windows[windows.index(window)] = Window(window.start, ended.over_at.timestamp(), revoked=True)


class Chaos:
    """One fault after the other, each healed before the next; what was out, from when until when, is history."""

    def __init__(self, rig, postgres, history, dice):
        self._rig = rig
        self._postgres = postgres
        self._history = history
        self._dice = dice
        self.done: list[str] = []

    async def run(self, until_s):
        faults = [
            self._kill_daemon,
            self._freeze_daemon,
            self._kill_broker,
            self._empty_broker,
            self._freeze_broker,
            self._kill_postgres,
            self._freeze_postgres,
        ]
        while time.monotonic() < until_s:
            await asyncio.sleep(self._dice.uniform(1, 4))
            fault = self._dice.choice(faults)
            async with self._outage(fault.__name__):
                await fault()

    @asynccontextmanager
    async def _outage(self, what):
        begun = time.time()
        yield
        deadline = time.time() + 90
        while not await asyncio.to_thread(self._rig.daemon.is_done):
            assert time.time() < deadline, f"not healed after {what}: {self._rig.daemon.status()}"
            await asyncio.sleep(0.05)
        self.done.append(what)
        self._history.outages.append(Outage(what, begun, time.time()))

    async def _kill_daemon(self):
        await asyncio.to_thread(self._rig.daemon.kill)
        await asyncio.sleep(self._dice.uniform(0, 1))
        self._rig.daemon.start()

    async def _freeze_daemon(self):
        self._rig.daemon.signal(signal.SIGSTOP)
        await asyncio.sleep(self._dice.uniform(0.5, 2))
        self._rig.daemon.signal(signal.SIGCONT)

    async def _kill_broker(self):
        await asyncio.to_thread(self._rig.broker.process.kill)
        await asyncio.to_thread(self._rig.broker.process.start)

    async def _empty_broker(self):
        await asyncio.to_thread(self._rig.empty_broker)

    async def _freeze_broker(self):
        begun = time.time()
        self._rig.broker.process.freeze()
        await asyncio.sleep(self._dice.uniform(0.5, 2))
        self._rig.broker.process.thaw()
        self._history.standstills.append(Outage("the broker was frozen", begun, time.time()))

    async def _kill_postgres(self):
        await asyncio.to_thread(self._postgres.kill)
        await asyncio.sleep(self._dice.uniform(0, 1))
        deadline = time.time() + 60
        while True:
            try:
                return await asyncio.to_thread(self._postgres.start)
            except ServerError:  # it refuses while a process of the killed one still holds its shared memory
                assert time.time() < deadline, "PostgreSQL does not come back"
                await asyncio.sleep(0.2)

    async def _freeze_postgres(self):
        self._postgres.freeze()
        await asyncio.sleep(self._dice.uniform(0.5, 2))
        self._postgres.thaw()


def test_nobody_gets_more_or_less_than_granted_whatever_dies():
    print(f"\nseed {SEED}, {CHAOS_S:g} s")
    dice = random.Random(SEED)
    slowness = yardstick.slowness()
    history = History(late_s=1.0 * slowness, early_s=2.0 * slowness)

    async def main(rig, postgres):
        users = [User(rig, f"u-{n}", history) for n in range(USERS)]
        workers = [*users, *(Rae(rig, f"R{n}") for n in range(RAES)), Granter(rig, users, history, dice)]
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        chaos = Chaos(rig, postgres, history, dice)
        await chaos.run(time.monotonic() + CHAOS_S)
        await asyncio.sleep(5)
        for task in tasks:
            assert not task.done(), task
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return chaos.done

    with ExitStack() as stack:
        folder = stack.enter_context(public_folder())
        server = PostgreSQL(folder / "postgresql")  # durable: what was granted before a kill counts
        postgres = stack.enter_context(start(server))
        database = DatabaseSettings(conninfo=server.create_database("chaos"))
        rig = stack.enter_context(access_rig(folder, database))
        done = asyncio.run(main(rig, postgres))
    windows, given = (sum(map(len, found.values())) for found in (history.windows, history.given))
    refused = sum(map(len, history.refused.values()))
    print(f"{len(done)} faults, {windows} grants, {given} messages given, {refused} refused, slowness {slowness:.1f}")
    assert history.problems() == []
    assert windows > CHAOS_S
    assert given > CHAOS_S
