"""Requests to one RAE: each runs once at most and is answered, whatever dies or is repeated."""

import asyncio
import json
import logging
import sqlite3
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from dmpd.local_registry import metrics
from dmpd.local_registry.memory_control import MemoryControl
from dmpd.local_registry.request_table import Quota, RequestEntry
from dmpd.local_registry.settings import RequestSettings
from dmpd.local_registry.store import DATABASE_NAME, Commit, Store
from dmpd.model.codec import encode
from dmpd.model.messages import Change, Checkpoint, Closed, Request, Response
from tests.integration.test_local_registry_engine import RAE, Rig, quick, rig
from tests.support.aio import async_test
from tests.support.edge_cloud import EdgeCloud

__all__ = ["quick"]

NO_SESSION = "0f1e2345-6789-4abc-8def-0123456789ab"


def request(verb: str, where: str = "rae", /, *, name: str = "i1", **args: object) -> bytes:
    said = {name: Raw(json.dumps(value)) for name, value in args.items()}
    return encode(Request(v=1, rae=RAE, session=where, at=datetime.now(UTC), id=name, verb=verb, args=said))


async def answers(one: Rig, name: str = "i1", *, count: int = 1) -> list[Response]:
    """The final responses to ``name``, once there are ``count``."""

    def found() -> list[Response]:
        return [one_ for one_ in one.cloud.responses if one_.id == name and one_.outcome != "accepted"]

    await one.until(lambda: len(found()) >= count)
    return found()


async def a_device(one: Rig, number: int = 1) -> str:
    one.lan.say(number, ip=f"10.0.0.{number}")
    await one.until(lambda: one.engine.journal.committed > 0 and one.engine.uplink.connected)

    def found() -> list[str]:
        stored = set(one.engine.registry.open_sessions())
        return [key for key, device in one.engine.registry.devices.items() if device.ip == ip and key in stored]

    ip = f"10.0.0.{number}"
    await one.until(lambda: bool(found()))
    return found()[0]


def outcomes() -> Counter[tuple[str, str]]:
    """The metric: requests by verb and outcome."""
    samples = [one for family in metrics.requests.collect() for one in family.samples if one.name.endswith("_total")]
    return Counter({(one.labels["verb"], one.labels["outcome"]): int(one.value) for one in samples})


async def connected(one: Rig) -> None:
    await one.until(lambda: one.engine.uplink.connected)


class SlowControl(MemoryControl):
    """Holds each launch until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.begun = 0
        self.at_once = self.at_once_max = 0

    async def app_launch(self, target: Any, app: str, payload: str) -> None:
        self.begun += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        await super().app_launch(target, app, payload)


def use(one: Rig, control: MemoryControl) -> None:
    one.engine.requests._verbs._control = control


@async_test
async def test_a_ping_is_persisted_acknowledged_answered_and_becomes_durable(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await connected(one)
        cloud.ask(request("ping"), mid=7)
        assert cloud.clients[-1].acked == [], "not before it is on the disk"
        (done,) = await answers(one)
        assert done.outcome == "done"
        assert json.loads(bytes(done.result))["devices"] == 0
        assert cloud.clients[-1].acked == [7]
        assert [response.outcome for response in cloud.responses] == ["accepted", "done"]
        assert done.seq is not None
        assert done.epoch == one.engine.journal.epoch
        await one.until(lambda: one.engine.journal.rows == 0)


@async_test
async def test_a_repeated_request_gets_the_same_answer_and_runs_once_across_a_restart(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    control = MemoryControl()
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        session = await a_device(one)
        for _ in range(3):
            cloud.ask(request("app.launch", session, app="Netflix"), session=session, requester="u-ada")
        await answers(one, count=1)
        cloud.ask(request("app.launch", session, app="Netflix"), session=session, requester="u-ada")
        await answers(one, count=2)
        await one.until(lambda: one.engine.journal.rows == 0)
        cloud.ask(request("app.launch", session, app="Netflix", name="i1"), session=session, requester="u-bob")
        await answers(one, count=3)
    assert sum(control.done.values()) == 2, "ada's and bob's: the id is the requester's own"
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        await connected(one)
        cloud.ask(request("app.launch", session, app="Netflix"), session=session, requester="u-ada")
        found = await answers(one, count=4)
        assert {response.outcome for response in found} == {"done"}
        assert len({bytes(response.result) for response in found}) == 1
    assert sum(control.done.values()) == 2


@async_test
async def test_what_a_crash_interrupts_is_told_and_never_begun_again(tmp_path: Path) -> None:
    before = outcomes()
    cloud = EdgeCloud()
    control = SlowControl()
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        session = await a_device(one)
        cloud.ask(request("app.launch", session, app="Netflix", name="running"), session=session)
        cloud.ask(request("app.launch", session, app="Netflix", name="waiting"), session=session)
        await one.until(lambda: len(cloud.responses) == 2 and control.begun == 1)
        await one.until(lambda: one.engine.journal.rows == 0)
        one.engine.journal.answers.add = lambda *_: None  # type: ignore[method-assign]  # kill -9 writes nothing
    async with rig(cloud, tmp_path) as one:
        for name in ("running", "waiting"):
            (answer,) = await answers(one, name)
            assert answer.outcome == "interrupted"
        assert (outcomes() - before)["app.launch", "interrupted"] == 2
        cloud.ask(request("app.launch", session, app="Netflix", name="running"), session=session)
        assert [again.outcome for again in await answers(one, "running", count=2)] == ["interrupted"] * 2
    assert control.done.total() == 0


@async_test
async def test_requests_of_one_device_wait_for_each_other_and_those_of_all_are_bounded(tmp_path: Path) -> None:
    open_before = metrics.requests_open._value.get()
    cloud = EdgeCloud()
    control = SlowControl()
    async with rig(cloud, tmp_path, requests=RequestSettings(at_once_max=2)) as one:
        use(one, control)
        sessions = [await a_device(one, number) for number in (1, 2, 3)]
        for turn in range(2):
            for number, session in enumerate(sessions):
                cloud.ask(request("app.launch", session, app="Netflix", name=f"{number} {turn}"), session=session)
        await one.until(lambda: control.begun == 2 and len(cloud.responses) == 6)
        assert metrics.requests_open._value.get() == open_before + 6
        control.go.set()
        await one.until(lambda: sum(one_.outcome == "done" for one_ in cloud.responses) == 6)
        assert control.at_once_max == 2
        assert metrics.requests_open._value.get() == open_before
        done = [one_.id for one_ in cloud.responses if one_.outcome == "done"]
        for number in range(3):
            assert done.index(f"{number} 0") < done.index(f"{number} 1")


class JumpyTime:
    """``time`` with a wall clock that jumps by two days at each look, back and forth."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._ahead_s = 86_400

    def time(self) -> float:
        self._ahead_s = -self._ahead_s
        return time.time() + self._ahead_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)


@async_test
async def test_a_request_whose_turn_comes_too_late_is_expired_and_one_that_hangs_fails_whatever_the_wall_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpd.local_registry.requests.time", JumpyTime())
    before = outcomes()
    cloud = EdgeCloud()
    control = SlowControl()
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        session = await a_device(one)
        cloud.ask(request("app.launch", session, app="Netflix", name="hangs"), session=session, expiry_s=3)
        await one.until(lambda: control.begun == 1)
        cloud.ask(request("app.launch", session, app="Netflix", name="late"), session=session, expiry_s=1)
        cloud.ask(request("ping", name="dead"), expiry_s=0)
        assert [(await answers(one, name))[0].outcome for name in ("hangs", "late", "dead")] == [
            "failed",
            "expired",
            "expired",
        ]
        assert control.begun == 1
    assert control.done.total() == 0
    assert outcomes() - before == {("app.launch", "failed"): 1, ("app.launch", "expired"): 1, ("ping", "expired"): 1}


@async_test
async def test_refusals_name_their_reason_and_leave_no_trace(tmp_path: Path) -> None:
    before = outcomes()
    cloud = EdgeCloud()
    settings = RequestSettings(per_requester_max=2, waiting_max=2)
    async with rig(cloud, tmp_path, requests=settings) as one:
        session = await a_device(one)
        for name, verb, where, requester, args, said in (
            ("1", "reboot", "rae", "op-eve", {}, "unknown verb 'reboot'"),
            ("2", "ping", "rae", "u-ada", {}, "u-ada may not ask the RAE itself"),
            ("3", "app.launch", session, "u-ada", {"app": 7}, "Expected `str`, got `int`"),
            ("4", "ping", session, "op-eve", {}, "ping is asked of the RAE"),
        ):
            cloud.ask(request(verb, where, name=name, **args), session=where, requester=requester)  # type: ignore[arg-type]
            (refused,) = await answers(one, name)
            assert (refused.outcome, refused.seq) == ("refused", None)
            assert said in (refused.error or "")
        cloud.ask(request("probe", NO_SESSION, name="5"), session=NO_SESSION, requester="u-ada")
        assert "no such device session" in ((await answers(one, "5"))[0].error or "")
        for name in ("pin", "merge", "split"):
            cloud.ask(request(name, name=name), requester=f"op-{name}")
            assert (await answers(one, name))[0].error == f"{name} does not exist yet"
        for number in range(3):
            cloud.ask(request("ping", name=f"q{number}"), requester="op-quota")
            (last,) = await answers(one, f"q{number}")
        assert last.error == "too many requests within 24 h"
        control = SlowControl()
        use(one, control)
        for number in range(3):
            cloud.ask(
                request("app.launch", session, app="Netflix", name=f"w{number}"),
                session=session,
                requester=f"u-{number}",
            )
        assert "ask again later" in ((await answers(one, "w2"))[0].error or "")
        control.go.set()
        await answers(one, "w1")
    refused = {verb: count for (verb, outcome), count in (outcomes() - before).items() if outcome == "refused"}
    assert refused == {"unknown": 1, "ping": 3, "app.launch": 2, "probe": 1, "pin": 1, "merge": 1, "split": 1}
    with sqlite3.connect(tmp_path / DATABASE_NAME) as db:
        rows = {name for (name,) in db.execute("SELECT id FROM request")}
    assert rows == {"5", "pin", "merge", "split", "q0", "q1", "w0", "w1"}


@async_test
async def test_what_is_no_request_is_acknowledged_and_ignored(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await connected(one)
        cloud.ask(request("ping", name="retained"), retain=True, mid=1)
        for mid, payload in enumerate(
            (b"", b"{", b"\xff", b"x" * (256 * 1024 + 1), request("ping", NO_SESSION), b'{"v":1,"kind":"change"}'), 2
        ):
            cloud.ask(payload, mid=mid)
        cloud.ask(request("ping", a=1).replace(b'{"a":1}', b"7"), mid=8)
        cloud.ask(request("ping").replace(b'"id":"i1"', b'"id":7'), mid=9)
        await one.until(lambda: len(cloud.clients[-1].acked) == 9)
        cloud.ask(request("ping", name="last"), mid=10)
        await answers(one, "last")
        assert {response.id for response in cloud.responses} <= {"last", "i1"}
        assert cloud.clients[-1].acked == list(range(1, 11))


@async_test
async def test_an_id_that_was_used_for_something_else_is_refused(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        await connected(one)
        cloud.ask(request("ping"))
        await answers(one)
        cloud.ask(request("checkpoint.all"))
        assert (await answers(one, count=2))[1].error == "this id was used for ping of rae"


@async_test
async def test_attributes_are_committed_with_their_response_and_their_bounds_are_kept(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        session = await a_device(one)
        cloud.ask(request("attributes.set", session, set={"test_state": "in_test", "x": [1]}), session=session)
        (done,) = await answers(one)
        await one.until(lambda: one.engine.journal.rows == 0)
        change = next(message for message in cloud.kafka if isinstance(message, Change) and message.cause == "request")
        assert (change.seq or 0) + 1 == done.seq, "one transaction: their rows are neighbours"
        cloud.ask(request("attributes.set", session, unset=["x"], name="i2"), session=session)
        await answers(one, "i2")
        assert one.engine.registry.devices[session].record.attributes.keys() == {"test_state"}
        many = {f"a{number}": 1 for number in range(256)}
        cloud.ask(request("attributes.set", session, set=many, name="i3"), session=session)
        assert (await answers(one, "i3"))[0].error == "more than 256 attributes"
        for number in range(20):
            filled = {f"b{number}": "x" * 16_000}
            cloud.ask(request("attributes.set", session, set=filled, name=f"f{number}"), session=session)
        assert "a record of more than" in ((await answers(one, "f19"))[0].error or "")


@async_test
async def test_checkpoints_and_forget_and_log_level(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        session = await a_device(one)
        await one.until(lambda: one.engine.journal.rows == 0)

        def asked_for() -> int:
            return sum(isinstance(one_, Checkpoint) and one_.cause == "request" for one_ in cloud.kafka)

        cloud.ask(request("checkpoint", session), session=session)
        await answers(one)
        await one.until(lambda: asked_for() == 1)
        await one.until(lambda: one.engine.journal.rows == 0)
        cloud.ask(request("checkpoint.all", name="all"), requester="svc-registry")
        assert json.loads(bytes((await answers(one, "all"))[0].result)) == {"sessions": 1}
        await one.until(lambda: asked_for() == 2)
        cloud.ask(request("forget", name="forget", session=session))
        assert json.loads(bytes((await answers(one, "forget"))[0].result)) == {"held": True}
        await one.until(lambda: any(isinstance(one_, Closed) and one_.reason == "forgotten" for one_ in cloud.kafka))
        again = await a_device(one)
        assert again != session
        cloud.ask(request("forget", name="forget2", session=session))
        assert json.loads(bytes((await answers(one, "forget2"))[0].result)) == {"held": False}
        before = logging.getLogger().level
        try:
            cloud.ask(request("log_level", name="log", level="error"))
            await answers(one, "log")
            assert logging.getLogger().level == logging.ERROR
        finally:
            logging.getLogger().setLevel(before)


@async_test
async def test_an_epoch_is_raised_once_and_only_while_it_is_the_refused_one(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        session = await a_device(one)
        await one.until(lambda: one.engine.journal.rows == 0)
        cloud.reports = False
        one.lan.say(1, attributes={"a": b"1"})
        await one.until(lambda: one.engine.journal.rows > 0)
        refused = one.engine.journal.epoch
        above = refused + 10**9
        cloud.ask(request("epoch.raise", refused=refused + 1, above=above, name="not ours"))
        assert json.loads(bytes((await answers(one, "not ours"))[0].result)) == {"raised": False}
        cloud.ask(request("epoch.raise", refused=refused, above=refused - 1, name="not above"))
        await answers(one, "not above")
        assert one.engine.journal.epoch == refused
        cloud.reports = True
        cloud.ask(request("epoch.raise", refused=refused, above=above, name="ours"))
        (done,) = await answers(one, "ours")
        assert json.loads(bytes(done.result)) == {"raised": True}
        assert (done.epoch or 0) > above
        await one.until(lambda: one.engine.journal.rows == 0)
        row = cloud.rows[session]
        assert row is not None
        assert (row.epoch, row.stale) == (one.engine.journal.epoch, False)
        assert row.epoch > above


@async_test
async def test_a_probe_tells_whether_the_device_answered(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    async with rig(cloud, tmp_path) as one:
        session = await a_device(one)
        poked = asyncio.Event()

        async def poke(*, ip: str, mac: str | None) -> None:
            assert ip == "10.0.0.1"
            poked.set()

        one.lan.poke = poke  # type: ignore[method-assign]
        cloud.ask(request("probe", session), session=session)
        await asyncio.wait_for(poked.wait(), 10)
        one.lan.say(1)
        assert json.loads(bytes((await answers(one))[0].result)) == {"answered": True, "state": "online"}
        cloud.ask(request("probe", session, name="i2"), session=session)
        await one.until(lambda: one.engine.requests.open == 1)
        one.lan.say(1, reach="down", ip="10.0.0.1")
        assert json.loads(bytes((await answers(one, "i2"))[0].result))["answered"] is False


@async_test
async def test_apps_and_waking_by_the_device_control(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    control = MemoryControl()
    async with rig(cloud, tmp_path) as one:
        session = await a_device(one)
        cloud.ask(request("wake", session, name="none"), session=session)
        assert "no way to its devices" in ((await answers(one, "none"))[0].error or "")
        use(one, control)
        for number, (verb, args, result) in enumerate(
            (
                ("app.state", {"app": "Netflix"}, {"app": "Netflix", "state": "stopped", "stoppable": True}),
                ("app.launch", {"app": "Netflix"}, {"app": "Netflix", "state": "running"}),
                ("app.stop", {"app": "Netflix"}, {"app": "Netflix", "state": "stopped", "ran": True}),
                ("app.stop", {"app": "Netflix"}, {"app": "Netflix", "state": "stopped", "ran": False}),
                ("wake", {}, {"macs": ["3c:12:aa:00:00:01"]}),
            )
        ):
            cloud.ask(request(verb, session, name=str(number), **args), session=session)
            assert json.loads(bytes((await answers(one, str(number)))[0].result)) == result
        cloud.ask(request("app.launch", session, name="unknown", app="Nope"), session=session)
        (failed,) = await answers(one, "unknown")
        assert (failed.outcome, failed.error) == ("failed", "the device has no app Nope")


@async_test
async def test_a_full_disk_refuses_and_what_ran_is_answered_when_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = EdgeCloud()
    control = SlowControl()
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        session = await a_device(one)
        cloud.ask(request("app.launch", session, app="Netflix", name="ran"), session=session)
        await one.until(lambda: control.begun == 1)
        store = one.engine.journal._store
        assert store is not None
        store._db.execute("PRAGMA query_only=1")
        cloud.ask(request("ping", name="refused"))
        assert "cannot keep requests now" in ((await answers(one, "refused"))[0].error or "")
        control.go.set()
        await one.until(lambda: one.engine.requests.open == 0)
        store._db.execute("PRAGMA query_only=0")
        assert (await answers(one, "ran"))[0].outcome == "done"


@async_test
async def test_a_graceful_end_lets_what_runs_finish_and_answers_the_rest(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    control = SlowControl()
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        session = await a_device(one)
        cloud.ask(request("app.launch", session, app="Netflix", name="hangs"), session=session)
        cloud.ask(request("app.launch", session, app="Netflix", name="waits"), session=session)
        await one.until(lambda: control.begun == 1 and one.engine.requests.open == 2)
        assert await one.end()
        outcomes = {one_.id: one_.outcome for one_ in cloud.responses if one_.outcome != "accepted"}
        assert outcomes == {"hangs": "interrupted", "waits": "interrupted"}


@async_test
async def test_after_a_lost_store_nothing_that_may_have_run_is_run(tmp_path: Path) -> None:
    cloud = EdgeCloud()
    control = MemoryControl()
    async with rig(cloud, tmp_path) as one:
        use(one, control)
        session = await a_device(one)
        cloud.ask(request("app.launch", session, app="Netflix"), session=session)
        await answers(one)
    (tmp_path / DATABASE_NAME).write_bytes(b"damage" * 1000)
    for _ in range(2):  # it is remembered across restarts, too
        async with rig(cloud, tmp_path) as one:
            use(one, control)
            await connected(one)
            before = len(cloud.responses)
            cloud.ask(request("app.launch", session, app="Netflix"), session=session)
            await one.until(lambda before=before: len(cloud.responses) > before)  # type: ignore[misc]
            assert "lost its store" in (cloud.responses[-1].error or "")
    assert control.done.total() == 1


def test_a_day_is_remembered_and_no_longer_and_what_is_not_answered_yet_for_longer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    quota = Quota(10, 20)
    now_ms = time.time_ns() // 1_000_000
    old, young, open_ = (
        RequestEntry("u-a", name, "rae", "ping", at_ms) for name, at_ms in (("old", 0), ("young", now_ms), ("open", 0))
    )
    assert [one.kind for one in store.accept([old, young, open_, old], quota)] == ["new", "new", "new", "known"]
    store.commit(Commit(answers=[old._replace(response=b"{}"), young._replace(response=b"{}")]))
    store.forget_requests(before_ms=now_ms - 86_400_000, shift_ms=0)
    assert [one.kind for one in store.accept([old, young, open_], quota)] == ["new", "known", "known"]


def test_so_many_are_remembered_of_one_requester_and_in_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asked = [RequestEntry(who, name, "rae", "ping", 0) for who, name in ("a1", "a2", "a3", "b1", "b2")]
    kinds = [one.kind for one in store.accept(asked, Quota(2, 3))]
    assert kinds == ["new", "new", "over_quota", "new", "over_quota"]
    store.commit(Commit(answers=[asked[0]._replace(response=b"{}")]))
    store.forget_requests(before_ms=1, shift_ms=0)
    assert [one.kind for one in store.accept(asked, Quota(2, 3))] == [
        "new",
        "known",
        "over_quota",
        "known",
        "over_quota",
    ]
