"""``dmpd access`` as it runs, between a real Mosquitto and a real PostgreSQL: what it promises, and when."""

import asyncio
import time

import pytest

from dmpd.access import dynsec, exchange, store
from tests.support import yardstick
from tests.support.access import AccessDaemon, access_rig, own_rig
from tests.support.access_flood import Flood, Watcher, hears_and_commands, late_s
from tests.support.platform import until
from tests.support.services import only_postgresql, public_folder

pytestmark = [pytest.mark.services, pytest.mark.timeout(700)]

LATEST_S = 1.0
"""After its end nothing of a grant is delivered or accepted later than this."""
AGAIN_S = 3.0
"""The same, after a restart of a daemon that cannot ask the database."""


@pytest.fixture(scope="module")
def rig(postgres_server):
    with (
        postgres_server.database() as database,
        public_folder() as folder,
        access_rig(folder, database, standby_s=3.0) as found,
    ):
        yield found


def test_a_grant_ends_in_the_middle_of_a_flood(rig):
    """By time and by revocation; what he still asks for afterwards he does not get."""

    async def main():
        async with Flood(rig), Watcher(rig) as watcher:
            timed = rig.grant("u-a", level="command", s=8)
            await hears_and_commands(watcher)
            late = await late_s(watcher, timed.ends_at.timestamp())
            slowness = await asyncio.to_thread(yardstick.slowness)
            assert -slowness < late < LATEST_S * slowness, "to the end, and no longer"
            revoked = rig.grant("u-a", level="command")
            await hears_and_commands(watcher)
            with rig.connection() as connection:
                store.revoke(connection, revoked.id, by="op-test")
            assert await late_s(watcher, time.time()) < LATEST_S * slowness
        codes = {row[0] for row in rig.events("ended")}
        until(lambda: {timed.id, revoked.id} <= {row[0] for row in rig.events("ended")}, f"the audit has both {codes}")

    asyncio.run(main())


def test_a_second_daemon_is_noticed_and_nothing_is_lost(rig):
    """Both would keep the same rules; one of them stands by and says why. Which, is decided by who loses first."""
    with public_folder() as folder:
        second = AccessDaemon(folder, rig.broker, rig.database)
        second.start()
        try:
            both = (rig.daemon, second)
            until(lambda: any("0x8E" in one.status().get("reason", "") for one in both), "one of them stands by", 90)
            until(lambda: any(one.is_done() for one in both), "the other one is at work", 90)
        finally:
            second.stop()
    until(rig.daemon.is_done, "the first one again", timeout_s=60)


def test_what_others_changed_at_the_broker_is_put_right_and_audited(rig):
    async def main():
        await asyncio.to_thread(rig.daemon.stop)
        access = await dynsec.connect(rig.broker.settings("svc-access"), answer_timeout_s=10)
        for command in (
            {"command": "createRole", "rolename": "everything", "acls": []},
            {"command": "createClient", "username": "admin", "roles": [{"rolename": "everything"}]},
        ):
            await access._ask(command)
        await access.close()
        rig.daemon.start()
        until(rig.daemon.is_done, "reconciled")

    asyncio.run(main())
    until(lambda: rig.events("foreign principal removed"), "the principal is in the audit")
    assert [detail["rule"] for _, _, detail in rig.events("foreign rule removed")] == ["role:everything"]


def test_a_kick_asked_for_in_the_database_ends_a_connection(rig):
    async def main():
        rae = await rig.party("R9").connect()
        with rig.connection() as connection:
            exchange.ask_kick(connection, "R9", by="op-test")
        assert await rae.ended() == 0x98

    asyncio.run(main())
    until(lambda: rig.events("kicked"), "the audit says so")
    with rig.connection() as connection:
        assert exchange.snapshot(connection).kicks == []


def test_what_a_killed_daemon_could_not_write_the_next_one_finds(rig):
    """The audit takes no line; a grant ends, another one begins, and the daemon dies with both in its memory."""

    def of(grant):
        with rig.connection() as found:
            rows = found.execute("SELECT code, detail FROM access_event WHERE grant_id = %s ORDER BY at, id", (grant,))
            return [(code, detail.get("found")) for code, detail in rows if code != "granted"]

    def names(table, new):
        with rig.connection() as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {new}")

    known, brief = rig.grant("u-a"), rig.grant("u-b", s=6)
    later = rig.grant("u-c", starts_in_s=5)
    until(lambda: of(known.id) == of(brief.id) == [("in force", None)], "both are in force")
    names("access_event", "access_event_away")
    until(lambda: rig.daemon.status()["database_problem"], "it cannot write")
    assert rig.daemon.metric("dmpd_access_database_errors_total") > 0
    assert rig.daemon.metric("dmpd_access_database_age_seconds") > 0
    until(lambda: rig.daemon.status()["grants_in_force"] == 2 and not rig.daemon.status()["difference"], "one for one")
    until(lambda: brief.ends_at.timestamp() < time.time(), "one is over")
    until(lambda: rig.daemon.status()["rules"] == 2, "the broker has done both")
    rig.daemon.kill()
    names("access_event_away", "access_event")
    assert of(brief.id) == [("in force", None)]
    rig.daemon.start()
    until(lambda: of(brief.id) == [("in force", None), ("ended", "afterwards")], "the end is found")
    until(lambda: of(later.id) == [("in force", "afterwards")], "and the beginning")
    rig.revoke(known.id)
    rig.revoke(later.id)
    until(lambda: of(known.id)[-1] == of(later.id)[-1] == ("ended", None), "as ever")
    assert of(known.id) == [("in force", None), ("revoked", None), ("ended", None)], "nothing twice"


@pytest.mark.slow
def test_grants_end_without_the_database_and_after_kill_9_too():
    """The database stands still, then is gone; the daemon is killed and comes back without it."""
    only_postgresql()

    async def main(rig, server):
        slow = await asyncio.to_thread(yardstick.slowness)
        async with Flood(rig), Watcher(rig, "u-a") as one, Watcher(rig, "u-b") as two:
            first = rig.grant("u-a", level="command", s=6 + 2 * slow)
            second = rig.grant("u-b", level="command", s=12 + 6 * slow)
            await asyncio.gather(hears_and_commands(one), hears_and_commands(two))
            server.process.freeze()
            late = await late_s(one, first.ends_at.timestamp())
            slowness = await asyncio.to_thread(yardstick.slowness)
            assert -slowness < late < LATEST_S * slowness
            server.process.thaw()
            await asyncio.to_thread(server.process.kill)
            await asyncio.to_thread(rig.daemon.kill)
            await hears_and_commands(two)
            await asyncio.sleep(second.ends_at.timestamp() - time.time() + 1)
            await hears_and_commands(two)  # nobody ends it
            slowness = await asyncio.to_thread(yardstick.slowness)
            rig.daemon.start()
            started = time.time()
            assert await late_s(two, started) < AGAIN_S * slowness
            until(lambda: "database" in rig.daemon.status().get("reason", ""), "it says what it lacks")
            server.process.start()
            until(rig.daemon.is_done, "all is well again")
            until(lambda: {row[0] for row in rig.events("ended")} == {first.id, second.id}, "the audit has both ends")
            assert len(rig.events("ended")) == 2, "by whichever life"

    with own_rig() as (rig, server):
        asyncio.run(main(rig, server))
