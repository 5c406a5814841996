"""What cuts a run short is named, makes it ``unknown``, and leaves nothing running."""

import asyncio
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from msgspec import structs

from dmpd.canary import run as runner
from dmpd.canary.report import Counted
from dmpd.canary.run import _guarded, _kept, _lease
from dmpd.canary.settings import CanarySettings
from dmpd.canary.workers import CrowdFailedError
from dmpd.runtime.database import DatabaseUnreachableError
from dmpd.runtime.kafka import KafkaUnreachableError
from tests.support.aio import async_test, until
from tests.support.canary_reports import GOOD, new_run

SETTINGS = CanarySettings()


class Phases:
    """In the place of the real ones: does one thing, and remembers how it ended."""

    where = "in its phase 'flash'"

    def __init__(self, does):
        self._does = does
        self.ended = self.cancelled = False

    async def run(self):
        try:
            await self._does()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def end(self):
        self.ended = True


async def for_ever():
    await asyncio.Event().wait()


def raising(error):
    async def fail():
        raise error

    return fail


async def guarded(does, *, settings=SETTINGS, stop=None):
    phases = Phases(does)
    never = asyncio.get_running_loop().create_future()
    async with _lease(None, "r-1") as lost:
        problems = await _guarded(phases, settings, lost, stop or never)
    assert phases.ended
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, "something goes on"
    return phases, problems


@pytest.fixture(autouse=True)
def lease(monkeypatch):
    """The database's answer to the holder of the lease; looked at all the time."""
    answer = {"sentence": None}
    monkeypatch.setattr(runner.store, "LEASE_S", 0.05)
    monkeypatch.setattr(runner, "_renew", lambda *_: answer["sentence"])
    return answer


@async_test
async def test_a_run_that_comes_to_its_end_has_no_problems():
    async def nothing():
        await asyncio.sleep(0)

    assert (await guarded(nothing))[1] == []


@async_test
async def test_a_run_over_its_time_box_is_given_up_where_it_is():
    box = structs.replace(SETTINGS)
    structs.force_setattr(box, "time_box_s", 0.05)  # no settings that a person could give
    phases, (problem,) = await guarded(for_ever, settings=box)
    assert phases.cancelled
    assert (problem.name, problem.word) == ("time_box", "unknown")
    assert problem.sentence == "not over within 0.05 s; in its phase 'flash'"


@pytest.mark.parametrize(
    ("sentence", "name"),
    [("another instance has the lease", "lease_lost"), ("disabled by me: a deployment", "disabled")],
)
def test_a_lost_lease_and_the_switch_end_it(lease, sentence, name):
    lease["sentence"] = sentence
    phases, (problem,) = asyncio.run(guarded(for_ever))
    assert phases.cancelled
    assert (problem.name, problem.word, problem.sentence) == (name, "unknown", sentence)


@async_test
async def test_somebody_who_ends_the_runner_ends_it():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.02, stop.set_result, None)
    phases, (problem,) = await guarded(for_ever, stop=stop)
    assert phases.cancelled
    assert (problem.name, problem.word) == ("stopped", "unknown")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (CrowdFailedError("the crowd's process 7 ended while it should flash"), "crowd_failed"),
        (KafkaUnreachableError("127.0.0.1:9092: no answer"), "kafka_unreachable"),
        (DatabaseUnreachableError("connection refused"), "database_unreachable"),
    ],
)
def test_what_a_phase_failed_of_is_named_with_the_phase(error, name):
    _, (problem,) = asyncio.run(guarded(raising(error)))
    assert (problem.name, problem.word) == (name, "unknown")
    assert problem.sentence == f"in its phase 'flash': {error}"


def test_an_error_of_ours_is_no_verdict():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(guarded(raising(ZeroDivisionError())))


def test_a_database_that_does_not_answer_the_lease_is_no_reason_to_give_up(monkeypatch):
    def gone(*_):
        raise DatabaseUnreachableError("connection refused")

    monkeypatch.setattr(runner, "_renew", gone)

    async def a_while():
        await asyncio.sleep(0.1)

    assert asyncio.run(guarded(a_while))[1] == []


@async_test
async def test_the_lease_is_kept_while_a_run_that_was_given_up_still_ends(monkeypatch):
    renewed = []
    monkeypatch.setattr(runner, "_renew", lambda *_: renewed.append(True))

    class SlowToEnd(Phases):
        async def end(self):
            before = len(renewed)
            await until(lambda: len(renewed) > before + 1, "the lease renewed meanwhile")
            self.ended = True

    stop = asyncio.get_running_loop().create_future()
    stop.set_result(None)
    phases = SlowToEnd(for_ever)
    async with _lease(None, "r-1") as lost:
        await _guarded(phases, SETTINGS, lost, stop)
    assert phases.ended


@pytest.mark.parametrize(("lost", "word"), [(0, "unknown"), (1, "fail")])
def test_a_report_that_the_database_does_not_take_says_so_and_is_no_pass(monkeypatch, tmp_path, lost, word):
    def gone(*_):
        raise DatabaseUnreachableError("connection refused")

    monkeypatch.setattr(runner, "_SAVE_S", 0.0)
    monkeypatch.setattr(runner, "_save_once", gone)
    monkeypatch.setattr(runner, "_baseline", lambda *_: [])
    facts = structs.replace(GOOD, lost=Counted(count=lost))
    phases = SimpleNamespace(facts=lambda _: facts, took_s={})
    settings = structs.replace(SETTINGS, report_dir=str(tmp_path))
    report = asyncio.run(_kept(settings, None, new_run("r-1"), phases, [], datetime.now(UTC), 0.0))
    assert report.verdict == word
    assert report.reasons[-1].name == "report_not_saved"
    assert "connection refused" in report.reasons[-1].sentence
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_bytes())["verdict"] == word
