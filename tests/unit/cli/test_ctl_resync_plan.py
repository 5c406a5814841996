"""Asking RAEs for everything: at the promised rate, each once, and what becomes of each is told."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.cli.resync import Resync, Target, starts_s
from dmpd.model.codec import decode_record, encode
from dmpd.model.messages import Response
from dmpd.model.topics import partition_of, rsp_topic
from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer
from dmpd.runtime.kafka_reader import ReadRecord

ME = "op-eve"
PARTITIONS = 3


@given(devices=st.lists(st.integers(0, 400), max_size=50), rate=st.floats(0.5, 5000))
def test_records_come_at_the_rate(devices, rate):
    starts = starts_s(devices, rate)
    assert starts == sorted(starts)
    assert starts[:1] in ([], [0.0])
    for place, start_s in enumerate(starts):
        before = sum(max(1, count) for count in devices[:place])
        assert before == pytest.approx(rate * start_s)


def test_without_a_rate_all_are_asked_at_once():
    assert starts_s([5, 0, 7], 0) == [0.0, 0.0, 0.0]


class Lab:
    """RAEs that answer as they are told, on a clock of the test."""

    def __init__(self, answers, **producer):
        self.kafka = MemoryKafka()
        self.kafka.create_topic("dmp.cmd", partitions=PARTITIONS)
        self.answers = answers
        self.now_s = 0.0
        self.asked_s = {}
        self.resync = Resync(
            producer=MemoryProducer(self.kafka, **producer),
            responses=self,
            topic="dmp.cmd",
            partitions=PARTITIONS,
            requester=ME,
            lifetime_s=60,
            now_s=lambda: self.now_s,
        )

    def read(self, timeout_s, records_max):
        self.now_s += timeout_s
        said = []
        for number, records in enumerate(self.kafka.topics["dmp.cmd"]):
            for record in records:
                topic, asked = decode_record(record.key, record.value)
                assert (topic.requester, topic.session, asked.verb) == (ME, "rae", "checkpoint.all")
                assert number == partition_of(topic.rae, PARTITIONS)
                assert topic.rae not in self.asked_s, "asked once"
                self.asked_s[topic.rae] = self.now_s
                said += [self.response(topic.rae, asked.id, outcome) for outcome in self.answers.get(topic.rae, ())]
            records.clear()
        return [ReadRecord("dmp.rsp", 0, 0, 0, b"nonsense", b"{", ()), *said]

    @staticmethod
    def response(rae, request_id, outcome, requester=ME):
        error = "not now" if outcome == "refused" else None
        said = Response(
            v=1, rae=rae, session="rae", at=datetime.now(UTC), epoch=1, id=request_id, outcome=outcome, error=error
        )
        return ReadRecord("dmp.rsp", 0, 0, 0, rsp_topic(rae, "rae", requester).encode(), encode(said), ())


def target(rae, *, devices=10, reachable=True):
    return Target(rae=rae, devices=devices, reachable=reachable)


def test_each_rae_ends_in_its_own_state():
    lab = Lab({"A": ["accepted", "done"], "B": ["refused"], "C": ["accepted"], "E": ["expired"]})
    targets = [*(target(rae) for rae in "ABCDE"), target("F", reachable=False)]
    progress = []
    found = lab.resync.run(targets, rate=0, progress=lambda *told: progress.append(told))
    assert {one.rae: one.state for one in found} == {
        "A": "done",
        "B": "refused",
        "C": "no answer",
        "D": "no answer",
        "E": "expired",
        "F": "unreachable",
    }
    assert found[1].detail == "not now"
    assert "F" not in lab.asked_s
    assert 70.0 <= lab.now_s <= 71.0, "the last one is waited for until its request has expired"
    assert progress[-1] == (5, 5)


def test_the_pace_is_that_of_the_records():
    lab = Lab({rae: ["done"] for rae in "ABC"})
    lab.resync.run([target(rae, devices=100) for rae in "ABC"], rate=50)
    assert lab.asked_s["B"] - lab.asked_s["A"] == pytest.approx(2.0, abs=0.5)
    assert lab.asked_s["C"] - lab.asked_s["A"] == pytest.approx(4.0, abs=0.5)


def test_whom_the_client_has_no_room_for_is_asked_when_it_has():
    """Kafka is away for a while: what waits in the client is bounded, and nobody is left out or asked twice."""
    raes = [f"R-{number}" for number in range(7)]
    lab = Lab({rae: ["done"] for rae in raes}, queue_records_max=2)
    lab.kafka.up = False
    asked = []

    def progress(count, _settled):
        asked.append(count)
        lab.kafka.up = lab.kafka.up or len(asked) > 5

    found = lab.resync.run([target(rae) for rae in raes], rate=0, progress=progress)
    assert asked[:5] == [2] * 5
    assert [(one.rae, one.state) for one in found] == [(rae, "done") for rae in raes]


def test_what_kafka_refuses_is_told():
    lab = Lab({})
    lab.kafka.refused["dmp.cmd"] = "not authorised"
    (found,) = lab.resync.run([target("A")], rate=0)
    assert (found.state, found.detail) == ("not sent", "not authorised")


def test_answers_to_others_are_not_ours():
    lab = Lab({})
    lab.resync.run([], rate=0)
    assert lab.now_s == 0.0
    lab.answers = {"A": ["done"]}
    honest = lab.response

    def forged(rae, request_id, outcome):
        return honest(rae, request_id, outcome, requester="op-adam")

    lab.response = forged
    (found,) = lab.resync.run([target("A")], rate=0)
    assert found.state == "no answer"
