"""What a sender of requests says when answers do not come, with Kafka played by lists."""

from datetime import UTC, datetime

import pytest

from dmpd.cli import request_sender
from dmpd.cli.request_sender import NoAnswerError, RequestSender, new_request
from dmpd.model.codec import encode
from dmpd.model.messages import Response
from dmpd.model.topics import rsp_topic
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.runtime.settings import KafkaSettings, TopicSettings


class FakeFollower:
    """Gives what the test says, once."""

    partitions = 4

    def __init__(self, *_args, **_options):
        self.records = []

    def read(self, timeout_s, records_max):
        taken, self.records = self.records, []
        return taken

    def close(self):
        """Nothing to free."""


class FakeProducer:
    """Reports ``report`` for each record; never if it is ``...``."""

    report = None

    def __init__(self, *_args, **_options):
        self.sent = []

    def produce(self, topic, *, on_delivery, **record):
        self.sent.append((topic, record))
        if self.report is not ...:
            on_delivery(self.report)

    def poll(self, timeout_s):
        return 0

    def close(self):
        """Nothing to free."""


@pytest.fixture
def sender(monkeypatch):
    monkeypatch.setattr(request_sender, "Follower", FakeFollower)
    monkeypatch.setattr(request_sender, "Producer", FakeProducer)
    monkeypatch.setattr(request_sender, "BEYOND_S", 0.05)
    return RequestSender(KafkaSettings(), TopicSettings(), "op-eve")


def said(outcome, *, rae="r1", requester="op-eve", name="i1"):
    response = Response(v=1, rae=rae, session="rae", at=datetime.now(UTC), epoch=1, id=name, outcome=outcome)
    key = rsp_topic(rae, "rae", requester).encode()
    return ReadRecord("dmp.rsp", 0, 0, 0, key, encode(response), ())


def test_only_our_own_answers_count_and_the_final_one_ends_it(sender):
    sender._responses.records = [
        said("done", rae="r2"),
        said("done", requester="op-bob"),
        said("done", name="i2"),
        ReadRecord("dmp.rsp", 0, 0, 0, b"nonsense", b"{", ()),
        said("accepted"),
        said("accepted"),
        said("failed"),
        said("done"),
    ]
    heard = []
    response = sender.ask(new_request("r1", "rae", "ping", {}, name="i1"), lifetime_s=1, told=heard.append)
    assert response.outcome == "failed"
    assert [one and one.outcome for one in heard] == [None, "accepted", "failed"]
    ((topic, record),) = sender._producer.sent
    assert (topic, record["key"]) == ("dmp.cmd", b"dmp/v1/r1/rae/cmd/op-eve")
    assert record["headers"] == (("mqtt-message-expiry-interval", b"1"),)


@pytest.mark.parametrize(("answers", "words"), [([], "does the bridge run"), (["accepted"], "the id i1 asks again")])
def test_no_final_answer_is_an_error_that_says_how_far_it_came(sender, answers, words):
    sender._responses.records = [said(outcome) for outcome in answers]
    waited = []
    with pytest.raises(NoAnswerError, match=words):
        sender.ask(new_request("r1", "rae", "ping", {}, name="i1"), lifetime_s=1, waiting=lambda: waited.append(1))
    assert waited


@pytest.mark.parametrize(("report", "words"), [("no such topic", "no such topic"), (..., "within 0.05 s")])
def test_a_request_that_kafka_does_not_take_is_an_error(sender, monkeypatch, report, words):
    monkeypatch.setattr(FakeProducer, "report", report)
    with pytest.raises(UnavailableError, match=words):
        sender.ask(new_request("r1", "rae", "ping", {}), lifetime_s=1)
