"""What the canary's reader of Kafka makes of each record, and its follower of the lag of each answer."""

import threading
import time
import uuid
import zlib
from types import SimpleNamespace

import msgspec
import pytest

from dmpd.canary import kafka_watch
from dmpd.canary.arrivals import Arrivals
from dmpd.canary.kafka_watch import KafkaWatch, LagWatch
from dmpd.canary.plan import Plan, payload, rae_of, session_of, topic_of
from dmpd.model.topics import info_topic
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka_admin import Progress
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.runtime.settings import KafkaSettings
from tests.support.messages import SESSION

PLAN = Plan(run=str(uuid.UUID(int=5)), seed=1, epoch=9, first=1, last=2, changes=3, started_ms=1)
CONTROL = Plan(run=PLAN.run, seed=1, epoch=9, first=3, last=3, changes=9, started_ms=1)
FORMER = Plan(run=str(uuid.UUID(int=4)), seed=1, epoch=8, first=1, last=2, changes=3, started_ms=1)


@pytest.fixture
def watch():
    return KafkaWatch(KafkaSettings(), info="i", rsp="r", crowds=[Arrivals(PLAN), Arrivals(CONTROL)])


def record(key, value):
    return ReadRecord("i", 0, 7, 1, key.encode(), value, ())


def take(watch, plan, number, slot):
    watch._take_info(record(topic_of(plan, number, slot), payload(plan, number, slot, 1)), 1_000 + slot)


def test_every_message_of_both_crowds_is_noted_at_its_slot(watch):
    crowd, control = watch._crowds
    for slot in range(PLAN.slots):
        take(watch, PLAN, 2, slot)
    take(watch, CONTROL, 3, 4)
    assert (crowd.slots_of(1), crowd.slots_of(2), control.slots_of(3)) == ([], list(range(PLAN.slots)), [4])
    assert crowd._crc[PLAN.slots + 1] == zlib.crc32(payload(PLAN, 2, 1, 1))
    assert (crowd.wrong.count, crowd.reordered.count) == (0, 0)


def test_what_a_former_run_said_and_its_clearing_are_no_concern_of_this_one(watch):
    take(watch, FORMER, 1, 2)
    cleared = {"kind": "closed", "epoch": PLAN.epoch, "rev": 1 << 40, "reason": "left"}
    watch._take_info(record(info_topic(rae_of(1), session_of(FORMER.run, 1)), msgspec.json.encode(cleared)), 1)
    assert (watch._crowds[0].count, watch._crowds[0].wrong.count) == (0, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"dmp/v1/{rae_of(1)}/{SESSION}/info", {"kind": "change", "epoch": 9, "seq": 2}),
        (f"dmp/v1/{rae_of(1)}/nonsense", {"kind": "change"}),
        (topic_of(PLAN, 1, 2), None),
        (topic_of(PLAN, 1, 2), {"kind": "change", "epoch": 9, "seq": PLAN.slots}),
        (topic_of(PLAN, 1, 2), {"kind": "change", "epoch": 9}),
    ],
)
def test_a_record_under_a_canarys_name_that_nobody_sent_is_wrong(watch, key, value):
    watch._take_info(record(key, b"{}" if value is None else msgspec.json.encode(value)), 1)
    (found,) = [crowd.wrong for crowd in watch._crowds if crowd.wrong.count]
    assert found.count == 1
    assert "i 0:7" in found.examples[0]


def test_changes_of_others_are_told_once(watch):
    watch._take_info(record(info_topic("R-1", SESSION), b'{"kind":"change"}'), 1)
    watch._take_info(record(info_topic("R-2", SESSION), b'{"kind":"checkpoint"}'), 1)
    assert watch.others() == [("R-1", SESSION)]
    assert watch.others() == []


def test_of_a_fleet_that_changes_all_the_time_only_some_are_told(watch):
    for number in range(300):
        watch._take_info(record(info_topic(f"R-{number}", SESSION), b'{"kind":"change"}'), 1)
    assert len(watch.others()) == kafka_watch._OTHERS_MAX < 300


def test_only_a_request_that_was_done_is_answered(watch):
    for outcome, at_ns in (("accepted", 1), ("failed", 2), ("done", 3), ("done", 4)):
        answer = msgspec.json.encode({"id": "r-1", "outcome": outcome})
        watch._take_response(record(f"dmp/v1/{rae_of(1)}/{SESSION}/rsp/svc-canary", answer), at_ns)
    watch._take_response(record(f"dmp/v1/R-1/{SESSION}/rsp/u-1", b'{"id":"r-2","outcome":"done"}'), 5)
    assert watch.answered_ns == {"r-1": 3}


def test_a_reader_that_dies_says_of_what_and_is_closed(watch):
    closed = []

    def read(*_):
        raise OSError("no room")

    watch._run(SimpleNamespace(read=read, close=lambda: closed.append(True)), watch._take_info, threading.Event())
    assert watch.trouble == "OSError: no room"
    assert closed == [True]


def test_a_kafka_that_does_not_say_the_lag_is_asked_again(monkeypatch):
    lag = LagWatch(KafkaSettings(), group="g", topic="i")
    answers = [UnavailableError("no answer"), Progress(ends={0: 9}, next={0: 9})]
    stopping = SimpleNamespace(wait=lambda _: not answers)

    def ask():
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(kafka_watch.kafka_admin, "GroupProgress", lambda *_, **__: SimpleNamespace(ask=ask))
    lag.aim()
    lag._run(stopping)
    assert lag.done_s is not None


def test_the_lag_is_over_when_all_that_was_there_at_the_aim_is_committed():
    lag = LagWatch(KafkaSettings(), group="g", topic="i")
    lag._note(Progress(ends={0: 9, 1: 9}, next={0: 9, 1: 9}), aimed=False)
    assert lag.done_s is None, "nobody aimed"
    lag._note(Progress(ends={0: 20, 1: 30}, next={0: 10, 1: 25}), aimed=True)
    lag._note(Progress(ends={0: 21, 1: 40}, next={0: 20, 1: 29}), aimed=True)
    assert lag.done_s is None, "one partition is behind"
    lag._note(Progress(ends={0: 22, 1: 50}, next={0: 21, 1: 30}), aimed=True)
    assert lag.done_s is not None
    assert lag.done_s <= time.monotonic()
    assert lag.lag_max == 21
