"""What the phases make of what their watchers see: what is behind, silent, left open or away is told."""

from types import SimpleNamespace

import pytest
from msgspec import structs

from dmpd.canary import phases as phase_code
from dmpd.canary import requests as request_code
from dmpd.canary.crowd import Told
from dmpd.canary.history import History
from dmpd.canary.phases import Phases
from dmpd.canary.plan import Plan, rae_of
from dmpd.canary.platform import Platform
from dmpd.canary.report import Counted
from dmpd.canary.requests import RequestSample
from dmpd.canary.rows import FoundRow
from dmpd.canary.settings import CanarySettings
from dmpd.canary.workers import CrowdFailedError
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings, MqttSettings, TopicSettings
from tests.support.aio import async_test

SETTINGS = CanarySettings(clients=2, control_clients=1, processes=2, ramp="herd", probes=2)
PLAN = Plan(run="00000000-0000-0000-0000-000000000001", seed=1, epoch=9, first=1, last=2, changes=4, started_ms=1)
PLATFORM = Platform(
    kafka=KafkaSettings(), topics=TopicSettings(), mqtt=MqttSettings(), database=DatabaseSettings(), group="g"
)


class Crowd:
    """In the place of the processes: answers each order with what the test says, and remembers it."""

    def __init__(self, **answers):
        self.progress = {}
        self.answers = answers
        self.orders = []

    async def order(self, what, result, **_):
        self.orders.append(what)
        found = self.answers.get(what, [None])
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def phases(monkeypatch):
    for name in ("_LOOK_S", "_OPEN_LOOK_S"):
        monkeypatch.setattr(phase_code, name, 0.0)
    made = Phases(SETTINGS, PLATFORM, plan=PLAN, former=[], say=lambda *_: None)
    made._crowd = Crowd(report=[told(History(PLAN))])
    made._control = Crowd(report=[told(History(made._control_plan))])
    return made


@pytest.fixture
def sample(monkeypatch):
    class Producer:
        def __init__(self, *_, **__):
            self.keys = []

        def produce(self, topic, *, key, **_):
            self.keys.append(key)

        def poll(self, _):
            return 0

    monkeypatch.setattr(request_code, "Producer", Producer)
    return RequestSample(KafkaSettings(), topic="c", partitions=3, plan=PLAN)


def told(history):
    nothing = Counted()
    return Told(
        part=history.export(),
        unsent=0,
        holes=nothing,
        refusals=0,
        disconnects=nothing,
        leftovers=nothing,
        behind_s=0.0,
        answered=0,
        cpu_s=0.0,
        rss_bytes=0,
    )


def came(phases, number, *slots):
    for slot in slots:
        phases.seen.arrivals.note(number, slot, 1, 1, "here")


@async_test
async def test_a_request_without_an_answer_is_told_with_its_client(phases, sample):
    await sample.send([1, 2], 0.0)
    phases._requests, phases.seen.drained = sample, True
    phases._kafka.answered_ns[f"{PLAN.run}-1"] = sample.sent_ns[f"{PLAN.run}-1"] + 250_000_000
    facts = phases.facts([])
    assert (facts.requests_asked, facts.times["request"].n, facts.times["request"].max) == (2, 1, 0.25)
    assert facts.requests_unanswered.examples == [f"canary-0002: request {PLAN.run}-2 without an answer"]


def test_a_reader_of_kafka_that_died_is_a_problem_of_the_run(phases):
    phases._kafka.trouble = "OSError: no room"
    (problem,) = phases.facts([]).problems
    assert (problem.name, problem.word, problem.sentence) == ("kafka_reader_died", "unknown", "OSError: no room")


@pytest.mark.parametrize("rev", [2, None])
def test_a_row_that_never_caught_up_is_behind_and_no_row_is_wrong_for_it(phases, rev):
    came(phases, 1, 1, 2, 3)
    row = None if rev is None else FoundRow(number=1, rev=rev, stale=False, closed=False, fields={})
    phases._ask = lambda _: {} if row is None else {1: row}
    phases._prove_rows()
    assert phases.seen.rows_behind.examples == [f"canary-0001: rev {rev or 0} in its row, 3 in Kafka"]
    assert (phases.seen.compared, phases.seen.wrong_rows.count) == (rev is not None, 0)


def test_a_row_that_caught_up_is_held_against_what_was_sent(phases):
    came(phases, 1, 1, 2, 3)
    phases._ask = lambda _: {1: FoundRow(number=1, rev=3, stale=True, closed=False, fields={})}
    phases._prove_rows()
    assert phases.seen.rows_behind.count == 0
    assert "canary-0001: stale is True" in phases.seen.wrong_rows.examples


@pytest.mark.parametrize(
    ("closed", "looks", "left"),
    [
        ((), [["canary-0002"]], ["canary-0002"]),  # it could not say so: nobody waits for it
        ((1,), [["canary-0001"], ["canary-0001"], []], []),
        ((1,), [["canary-0001", "canary-0002"], ["canary-0002"]], ["canary-0002"]),
    ],
)
@async_test
async def test_a_device_session_that_stays_open_is_a_leftover(phases, closed, looks, left):
    for number in closed:
        came(phases, number, PLAN.closed_slot)
    phases._ask = lambda _: looks.pop(0)
    await phases._close()
    assert phases.seen.leftovers.examples == [f"{rae}: its device session is still open" for rae in left]
    assert not looks
    assert (phases._crowd.orders, phases._control.orders) == (["close", "report"], ["close", "report"])


@async_test
async def test_a_device_session_that_said_its_end_is_waited_for_only_so_long(phases, monkeypatch):
    monkeypatch.setattr(phase_code, "_CLOSED_S", 0.0)
    came(phases, 1, PLAN.closed_slot)
    phases._ask = lambda _: ["canary-0001"]
    await phases._close()
    assert phases.seen.leftovers.examples == ["canary-0001: its device session is still open"]


@pytest.mark.parametrize(
    ("before", "after", "deaths"), [(3, 5, 2), (3, 0, 0), (None, 5, None), (3, None, None), (0, 0, 0)]
)
@async_test
async def test_what_the_broker_and_the_cloud_registry_say_at_the_end_is_kept(
    phases, monkeypatch, before, after, deaths
):
    """A Cloud Registry that began anew counts from 0, one that does not answer is no proof of anything."""

    async def settled(_):
        return {"retained": 7}

    monkeypatch.setattr(phase_code, "worker_deaths", lambda _: after)
    phases._deaths_before = before
    phases._broker = SimpleNamespace(before={"retained": 1}, settled=settled)
    phases.seen.sys_before = {"retained": 1}
    phases._crowd.answers["cleanup"], phases._control.answers["cleanup"] = [1, 1], [1]
    await phases._cleanup()
    facts = phases.facts([])
    assert facts.broker == {"before": {"retained": 1}, "after": {"retained": 7}}
    assert (facts.cleaned, facts.worker_deaths) == (2, deaths)


@async_test
async def test_an_old_account_does_not_stand_beside_newer_records(phases):
    await phases._ask_crowd()
    await phases._control_report()
    assert phases.seen.told
    assert phases.seen.control_told
    phases._crowd.answers["report"] = phases._control.answers["report"] = CrowdFailedError("it died")
    for ask in (phases._ask_crowd, phases._control_report):
        with pytest.raises(CrowdFailedError):
            await ask()
    assert (phases.seen.told, phases.seen.control_told) == ((), None)


@pytest.mark.parametrize("last", ["in Kafka", "in its row", "answered", "committed"])
@async_test
async def test_the_drain_ends_when_the_last_of_what_it_waits_for_has_come(phases, sample, monkeypatch, last):
    monkeypatch.setattr(phase_code, "_SAY_S", -1.0)
    history = History(PLAN)
    history.note_sent(1, 3, 1, 1)
    history.note_acked(1, 3, 0, 2)
    phases._crowd.answers["report"] = [told(history)]
    await sample.send([2], 0.0)
    phases._requests = sample
    steps = {
        "in Kafka": lambda: came(phases, 1, 3),
        "in its row": lambda: phases._rows.revs.update({1: 3}),
        "answered": lambda: phases._kafka.answered_ns.update(sample.sent_ns),
        "committed": lambda: setattr(phases._lag, "done_s", 1.0),
    }
    order = sorted(steps, key=lambda name: name == last)
    phases._say = lambda *_: steps[order.pop(0)]()
    await phases._drain()
    assert order == [], "it did not wait for all"


@async_test
async def test_a_drain_that_does_not_come_to_its_end_ends_in_its_time(phases):
    phases._settings = structs.replace(SETTINGS)
    structs.force_setattr(phases._settings, "drain_timeout_s", 0.0)
    await phases._drain()
    assert phases._crowd.orders == ["report", "report"], "it asks once more: durable may have come meanwhile"


@async_test
async def test_what_former_runs_left_is_swept_and_what_stays_is_counted(phases):
    async def sweep(left):
        return len(left) - 1

    phases._crowd.sweep = sweep
    phases._ask = lambda _: ["one", "two", "three"]
    await phases._sweep()
    assert (phases.seen.swept, phases.seen.unswept) == (2, 1)


@async_test
async def test_at_the_end_the_reader_of_kafka_stops_first_and_everything_stops_whoever_is_dead(phases):
    """It would hear of the control group what that has not told of yet, and call it never sent."""
    order = []

    class Part(Crowd):
        def __init__(self, name, **answers):
            super().__init__(**answers)
            self._name = name

        async def order(self, what, result, **_):
            order.append(f"{self._name} {what}")
            return await super().order(what, result)

        async def stop(self):
            order.append(f"{self._name} stop")

    def watcher(name, **more):
        return SimpleNamespace(stop=lambda: order.append(f"{name} stop"), **more)

    phases._kafka = watcher("kafka")
    phases._crowd = Part("crowd", report=CrowdFailedError("it died"))
    phases._control = Part("control", report=[told(History(phases._control_plan))])
    phases._broker = Part("broker")
    phases._rows, phases._control_rows, phases._lag = watcher("rows"), watcher("control rows"), watcher("lag")
    await phases.end()
    assert order[:3] == ["kafka stop", "crowd report", "control report"]
    names = ("broker", "control", "control rows", "crowd", "lag", "rows")
    assert sorted(order[3:]) == sorted(f"{name} stop" for name in names)
    assert phases.seen.control_told is not None


def test_each_process_probes_for_its_own_clients_and_the_control_group_comes_evenly_and_probes_nothing(phases):
    first, second = phases._crowd_jobs()
    assert [(one.plan.numbers, one.probes, one.whole_last) for one in (first, second)] == [
        (range(1, 2), [1], 2),
        (range(2, 3), [2], 2),
    ]
    assert (first.ramp, first.profile) == ("herd", SETTINGS.profile)
    control = phases._job(phases._control_plan, phases._control_plan)
    assert (control.ramp, control.probes, control.plan.numbers) == ("linear", [], range(3, 4))
    assert control.plan.changes > SETTINGS.time_box_s, "it has a beat for each second of the run"
    assert rae_of(3) == "canary-0003"
