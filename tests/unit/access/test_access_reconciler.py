"""The reconciler against the twin: what reaches the broker, in which order, and what the audit says."""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from dmpd.access.audit import LastWords
from dmpd.access.broker import BrokerGoneError, DropUser, Held, PutUser
from dmpd.access.exchange import Kick, Snapshot
from dmpd.access.journal import Journal
from dmpd.access.memory import MemoryRules
from dmpd.access.reconciler import Reconciler
from dmpd.access.settings import AccessSettings
from dmpd.model.grants import Grant
from dmpd.runtime import metrics
from tests.support.grants import S1

NOW = datetime.now(UTC)


def grant(name, user="u-a", *, lasts_s=3600.0, level="command"):
    return Grant(
        id=name,
        user=user,
        rae="R1",
        session=S1,
        level=level,
        starts_at=NOW - timedelta(minutes=1),
        ends_at=datetime.now(UTC) + timedelta(seconds=lasts_s),
        created_at=NOW - timedelta(minutes=1),
        granted_by="op-test",
        why="test",
    )


def snapshot(*grants, users=(), kicks=()):
    return Snapshot(version=1, now=NOW, grants=grants, users=frozenset(users), kicks=kicks)


class Rig:
    def __init__(self, server=None, **settings):
        self.server = server or MemoryRules()
        self.news = 0
        self.journal = Journal(events_max=1000, on_news=lambda: None)
        self.reconciler = Reconciler(
            AccessSettings(**{"retry_interval_s": 0.05, **settings}),
            connect=self.server.connect,
            journal=self.journal,
        )

    @property
    def audit(self):
        return [(event.code, event.grant or event.principal) for event in self.journal.next(1000)]

    def details(self, code):
        return [event.detail for event in self.journal.next(1000) if event.code == code]

    async def until(self, condition, what):
        deadline = asyncio.get_running_loop().time() + 60
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"{what}: {self.reconciler.problem}"
            await asyncio.sleep(0.002)

    async def settled(self):
        await self.until(lambda: self.reconciler.problem is None, "settled")

    def use(self, *grants, **more):
        self.reconciler.problem = "given something new"
        self.reconciler.use(snapshot(*grants, **more))

    @asynccontextmanager
    async def at_work(self):
        task = asyncio.create_task(self.reconciler.run())
        try:
            await self.settled()
            yield self
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(*grants, **settings):
    rig = Rig(**settings)
    if grants:
        rig.reconciler.use(snapshot(*grants))
    async with rig.at_work():
        yield rig


def run(test):
    asyncio.run(test())


def test_grants_come_go_and_end_and_the_audit_tells():
    async def test():
        async with running(grant("aaaa")) as rig:
            assert rig.server.held.users == {"u-a": {"aaaa"}}
            said = rig.reconciler.status()
            assert (said["grants_in_force"], said["rules"], said["users"], said["difference"]) == (1, 1, 1, 0)
            assert (said["clock"], said["problem"]) == ("machine", None)
            assert said["success_age_s"] >= 0
            assert 3000 < said["next_end_s"] <= 3600
            rig.use(grant("aaaa"), grant("bbbb", "u-b", lasts_s=0.3))
            await rig.until(lambda: rig.server.held.users.get("u-b") == {"bbbb"}, "the second one")
            await rig.until(lambda: "bbbb" not in rig.server.held.rules, "its end, by time alone")
            rig.use()
            await rig.until(lambda: rig.server.held.rules == {}, "revoked")
            assert rig.server.held.users == {"u-a": frozenset(), "u-b": frozenset()}, "never forgotten"
            assert [code for code, name in rig.audit if name == "bbbb"] == ["in force", "ended"]
            assert [code for code, name in rig.audit if name == "aaaa"][:1] == ["in force"]
            assert rig.audit[-1] == ("ended", "aaaa")
            in_force, (timed, revoked) = rig.details("in force"), rig.details("ended")
            assert all(told["after_s"] >= 60 for told in in_force), "they had begun a minute before"
            assert timed["after_s"] >= 0
            assert revoked == {}, "the audit has by whom"

    run(test)


def measured():
    """Every metric of access, by its name without what all have in common, and its labels."""
    found = re.findall(r"^dmpd_access_(\S+) ([-+.e\d]+)$", metrics.render().decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def counted():
    """A function that says by how much a metric has grown since now."""
    before = measured()
    return lambda name: measured().get(name, 0) - before.get(name, 0)


def test_the_metrics_tell_of_all_that_was_done():
    grown = counted()

    async def test():
        began = time.time()
        rig = Rig()
        rig.server.held.users["admin"] = None
        rig.server.held.rules["role:everything"] = None
        rig.server.kill()
        rig.reconciler.use(snapshot(grant("aaaa")))
        assert rig.reconciler.status()["success_age_s"] is None
        task = asyncio.create_task(rig.reconciler.run())
        try:
            await rig.until(lambda: grown('connects_total{outcome="failed"}') > 0, "nobody is there")
            rig.server.start()
            await rig.settled()
            assert began <= measured()["last_success_seconds"] <= time.time()
            assert 0 <= rig.reconciler.status()["success_age_s"] < time.time() - began
            assert grown('connects_total{outcome="ok"}') == 1
            assert grown('changes_total{kind="PutRule"}') == 1
            assert (grown("foreign_total"), grown("in_force_seconds_count")) == (2, 1)
            del rig.server.held.users["u-a"]
            rig.use()
            await rig.until(lambda: grown("refusals_total") > 0, "refused: there is no such user")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(test)


def test_how_late_an_end_was_is_measured_of_those_by_time():
    grown, journal = counted(), Journal(events_max=9, on_news=lambda: None)
    journal.ended(NOW, "timed", "u-a", NOW - timedelta(seconds=3))
    journal.ended(NOW, "revoked", "u-a", None)
    assert (grown("end_seconds_count"), grown("end_seconds_sum")) == (1, pytest.approx(3))


def test_what_is_under_way_is_the_difference():
    async def test():
        async with running(pause_factor=100.0, batch_s=0.0) as rig:
            rig.use(*(grant(f"{number:04}", f"u-{number}") for number in range(20)))
            await rig.until(lambda: rig.server.held.rules, "the first")
            left = rig.reconciler.status()["difference"]
            assert 0 < left <= 40
            assert measured()["difference"] == left

    run(test)


def test_started_without_the_database_it_ends_what_the_broker_says_is_over():
    async def test():
        async with running(grant("aaaa", lasts_s=0.5), grant("bbbb")) as first:
            server = first.server
            second = Rig(server)
            async with second.at_work():
                await second.until(lambda: server.held.users.get("u-a") == {"bbbb"}, "the end of what is over")
                await second.until(lambda: "aaaa" not in server.held.rules, "and of its rule")

    run(test)


def test_a_broker_that_comes_back_empty_is_filled_and_the_audit_says_lost():
    async def test():
        async with running(grant("aaaa")) as rig:
            rig.server.kill(rules_survive=False)
            await rig.until(lambda: rig.reconciler.problem is not None, "noticed")
            rig.server.start()
            await rig.until(lambda: rig.server.held.users.get("u-a") == {"aaaa"}, "filled")
            assert rig.audit == [("in force", "aaaa"), ("lost", "aaaa"), ("in force", "aaaa")]

    run(test)


def test_what_nobody_granted_is_removed():
    async def test():
        async with running(grant("aaaa"), reread_interval_s=0.05) as rig:
            rig.server.held.rules["role:everything"] = None
            rig.server.held.users["admin"] = None
            await rig.until(lambda: "admin" not in rig.server.held.users, "the principal is gone")
            await rig.until(lambda: "role:everything" not in rig.server.held.rules, "the rule is gone")
            assert ("foreign principal removed", "admin") in rig.audit
            assert DropUser("admin") in [change for _, change in rig.server.journal]

    run(test)


def test_an_end_passes_a_long_queue_of_beginnings():
    """Hundreds of grants on their way: one that ends meanwhile does not wait for them."""

    async def test():
        async with running(grant("aaaa", "u-z")) as rig:
            many = [grant(f"{number:04}", f"u-{number}") for number in range(300)]
            rig.use(grant("aaaa", "u-z"), *many)
            await rig.until(lambda: len(rig.server.held.rules) > 5, "on their way")
            rig.use(*many)
            before = len(rig.server.journal)
            await rig.until(lambda: rig.server.held.users["u-z"] == frozenset(), "the end")
            done = [change for _, change in rig.server.journal[before:]]
            assert done.index(PutUser("u-z", (), exists=True)) <= 2 * 16, "behind what was under way already"
            await rig.until(lambda: len(rig.server.held.rules) == 300, "all")

    run(test)


def test_a_refusal_has_it_read_again():
    async def test():
        async with running(grant("aaaa")) as rig:
            del rig.server.held.users["u-a"]
            rig.use()
            await rig.until(lambda: rig.server.held.rules == {}, "put right")

    run(test)


def test_who_takes_its_name_is_left_in_peace():
    async def test():
        async with running(grant("aaaa"), standby_s=30) as rig:
            other = await rig.server.connect()
            await rig.until(lambda: "0x8E" in (rig.reconciler.problem or ""), "it stands by")
            await asyncio.sleep(0.2)
            assert not other.closed.done()

    run(test)


def test_a_broker_that_hangs_up_again_and_again_is_a_name_taken_over():
    """Mosquitto 2.0.11 says no 0x8E; one that dies does not take the next connection at once."""

    async def test():
        async with running(grant("aaaa"), standby_s=30) as rig:
            for _ in range(3):
                await rig.until(lambda: not rig.server._connection.closed.done(), "connected")
                await asyncio.sleep(0.02)
                rig.server._connection.drop("the broker hung up")
            await rig.until(lambda: "0x8E" in (rig.reconciler.problem or ""), "it stands by")

    run(test)


def test_a_kick_is_done_once():
    async def test():
        async with running(grant("aaaa")) as rig:
            kick = Kick("k1", "R1", "op-test")
            rig.use(grant("aaaa"), kicks=[kick])
            await rig.until(lambda: rig.server.kicked.count("R1") == 1, "kicked")
            rig.use(grant("aaaa"), kicks=[kick])
            await rig.settled()
            assert rig.server.kicked.count("R1") == 1
            assert rig.reconciler.kicks_to_forget == ["k1"]
            assert ("kicked", "R1") in rig.audit

    run(test)


def test_compare_says_what_is_missing_and_a_dry_run_leaves_it():
    async def test():
        async with running(grant("aaaa")) as rig:
            assert await rig.reconciler.compare(dry_run=True) == []
            rig.server.held.users["admin"] = None
            assert await rig.reconciler.compare(dry_run=True) == [DropUser("admin")]
            assert "admin" in rig.server.held.users
            assert await rig.reconciler.compare(dry_run=False) == [DropUser("admin")]
            await rig.until(lambda: "admin" not in rig.server.held.users, "done at once")
            rig.server.freeze()
            asked = asyncio.create_task(rig.reconciler.compare(dry_run=True))
            await rig.until(lambda: rig.reconciler._asked, "asked")
            rig.server.kill()
            with pytest.raises(BrokerGoneError):
                await asyncio.wait_for(asked, 20)

    run(test)


def test_compare_without_the_database_says_why_not():
    async def test():
        async with running() as rig:
            with pytest.raises(BrokerGoneError, match="database was not read"):
                await rig.reconciler.compare(dry_run=True)

    run(test)


def test_what_a_former_life_did_not_write_is_found():
    """Whether the broker is read before the audit's last words come, or behind: once, and nothing that has its line."""

    async def test():
        async with running(grant("aaaa"), grant("bbbb", "u-b"), grant("cccc", "u-c", lasts_s=0.2)) as first:
            await first.until(lambda: "cccc" not in first.server.held.rules, "an end of its own")
            words = LastWords(in_force=frozenset(["aaaa", "gone", "cccc"]), unended={"gone": "u-a", "cccc": "u-c"})
            first.reconciler.recall(words)
            await first.until(lambda: ("ended", "gone") in first.audit, "found at once")
            await first.settled()
            details = {event.grant: event.detail for event in first.journal.next(99) if event.code == "ended"}
            assert details["gone"] == {"found": "afterwards"}
            assert "after_s" in details["cccc"], "in this life, as every end"
            assert first.audit.count(("in force", "aaaa")) == first.audit.count(("ended", "cccc")) == 1
            first.reconciler.recall(words)
            assert first.audit.count(("ended", "gone")) == 1

    run(test)


def test_a_rule_that_nobody_wrote_of_is_found_in_force_and_one_that_is_over_ends_as_ever():
    async def test():
        server, holds = MemoryRules(), grant("aaaa")
        async with running(holds, grant("over", lasts_s=1.5), server=server):
            pass
        second = Rig(server=server)
        second.reconciler.use(snapshot(holds))
        second.reconciler.recall(LastWords(in_force=frozenset(), unended={"over": "u-a"}))
        async with second.at_work():
            await second.until(lambda: "over" not in server.held.rules, "it ends")
            await second.until(lambda: ("in force", "aaaa") in second.audit, "and what holds is written")
            assert sorted(second.audit) == [("ended", "over"), ("in force", "aaaa")]
            assert second.details("in force") == [{"ends_at": holds.ends_at.isoformat(), "found": "afterwards"}]
            [told] = second.details("ended")
            assert "found" not in told

    run(test)


def test_without_the_database_nobody_says_that_a_rule_begins():
    """It had begun in a former life; when it did, the audit has."""

    async def test():
        server = MemoryRules()
        async with running(grant("aaaa"), grant("over", lasts_s=0.5), server=server):
            pass
        second = Rig(server=server)
        async with second.at_work():
            await second.until(lambda: "over" not in server.held.rules, "it ends")
            assert [code for code, _ in second.audit] == ["ended"]

    run(test)


def test_lines_that_wait_count_for_the_last_words_and_a_gap_asks_for_them_again():
    journal = Journal(events_max=3, on_news=lambda: None)
    journal.add(NOW, "ended", grant="ended", principal="u-a")
    journal.add(NOW, "in force", grant="began", principal="u-a")
    journal.add(NOW, "lost", grant="lost")
    assert not journal.has_gap
    journal.add(NOW, "ended", grant="dropped", principal="u-a")
    assert journal.has_gap
    journal.recall(
        LastWords(in_force=frozenset(["ended", "lost", "dropped"]), unended={"ended": "u-a", "dropped": "u-a"})
    )
    assert journal.announced == {"began", "dropped"}
    journal.written(3)
    journal.found(NOW, Held(base=True, rules={}, users={"u-a": frozenset(["began"])}))
    assert [(event.code, event.grant) for event in journal.next(9)] == [("ended", "dropped")]


def test_the_audit_that_waits_is_bounded_and_the_rest_is_counted():
    from dmpd.access import metrics

    journal = Journal(events_max=2, on_news=lambda: None)
    before = metrics.events_dropped._value.get()
    for number in range(5):
        journal.add(NOW, "test", grant=str(number))
    assert [event.grant for event in journal.next(10)] == ["0", "1"]
    assert metrics.events_dropped._value.get() == before + 3
    journal.written(1)
    assert [event.grant for event in journal.next(10)] == ["1"]
