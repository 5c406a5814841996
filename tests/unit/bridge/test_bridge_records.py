"""What becomes of one message."""

import json
from typing import NamedTuple

import pytest

from dmpd.bridge.records import HEADERS_BYTES_MAX, Row, dead_letter, record_of
from dmpd.model import limits
from dmpd.model.topics import partition_of
from dmpd.runtime.settings import TopicSettings

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
TOPICS = TopicSettings()


class Received(NamedTuple):
    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: int | None = None
    properties: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    correlation_data: bytes | None = None
    malformed: str | None = None


def payload(**fields: object) -> bytes:
    return json.dumps({"v": 1, "kind": "change", "rae": "A1", "session": SESSION, "epoch": 7, **fields}).encode()


def judge(message: Received):
    return record_of(message, TOPICS, partitions={"dmp.info": 12, "dmp.rsp": 4}, now_s=1_750_000_000.1234)


def test_a_change_becomes_a_record_keyed_by_its_topic_in_the_partition_of_its_rae() -> None:
    message = Received(f"dmp/v1/A1/{SESSION}/info", payload(seq=3, rev=1, set={}))
    record = judge(message)
    assert record is not None
    assert (record.topic, record.key, record.value) == ("dmp.info", message.topic.encode(), message.payload)
    assert record.partition == partition_of("A1", 12)
    assert record.row == Row("A1", 7, 3)
    assert record.reason is None
    assert record.headers == (("mqtt-received-at", b"2025-06-15T15:06:40.123Z"),)


def test_responses_have_a_topic_of_their_own() -> None:
    record = judge(Received(f"dmp/v1/A1/{SESSION}/rsp/u-team1", payload(kind="response", seq=9)))
    assert record is not None
    assert (record.topic, record.partition) == ("dmp.rsp", partition_of("A1", 4))
    assert record.row == Row("A1", 7, 9)


def test_mqtt_properties_become_headers() -> None:
    message = Received(
        f"dmp/v1/A1/{SESSION}/info", payload(), True, 60, (("a", "1"), ("a", "2")), "application/json", b"\x00"
    )
    record = judge(message)
    assert record is not None
    assert record.row is None
    assert record.headers[1:] == (
        ("mqtt-retain", b"1"),
        ("mqtt-message-expiry-interval", b"60"),
        ("mqtt-content-type", b"application/json"),
        ("mqtt-correlation-data", b"\x00"),
        ("mqtt-user-a", b"1"),
        ("mqtt-user-a", b"2"),
    )


@pytest.mark.parametrize(
    ("topic", "body", "reason", "row"),
    [
        (f"dmp/v1/A1/{SESSION}/info", payload(rae="B2", seq=5), "mismatch", Row("A1", 7, 5)),
        (f"dmp/v1/A1/{SESSION}/info", payload(session="rae", seq=5), "mismatch", Row("A1", 7, 5)),
        (f"dmp/v1/A1/{SESSION}/info", b"", "empty", None),
        (f"dmp/v1/A1/{SESSION}/info", b"{", "malformed", None),
        (f"dmp/v1/A1/{SESSION}/info", b"[" * 100_000, "malformed", None),
        (f"dmp/v1/A1/{SESSION}/info", b'{"rae":"\xff"}', "malformed", None),
        (f"dmp/v1/A1/{SESSION}/info", payload(seq="x"), "malformed", None),
        (f"dmp/v1/A1/{SESSION}/info", b" " * (limits.PAYLOAD_BYTES_MAX + 1), "too_large", None),
        ("dmp/v1/A1/not-a-session/info", payload(), "bad_key", None),
        (f"dmp/v1/A1/{SESSION}/rsp/A2", payload(), "bad_key", None),
    ],
)
def test_what_is_not_about_its_topic_is_a_dead_letter(topic, body, reason, row) -> None:
    record = judge(Received(topic, body))
    assert record is not None
    assert (record.topic, record.key, record.value) == ("dmp.info.dead", topic.encode(), body)
    assert record.reason == reason
    headers = dict(record.headers)
    assert headers["dmpd-reason"] == reason.encode()
    assert headers["dmpd-by"] == b"bridge"
    assert headers["dmpd-detail"]
    assert record.row == row


@pytest.mark.parametrize(
    ("topic", "malformed", "reason"),
    [
        (f"dmp/v1/A1/{SESSION}/info", "user property", "malformed"),
        (f"dmp/v1/A1/{SESSION}/info", "content type", "malformed"),
        ("dmp/v1/A1/\ufffd/info", "topic", "bad_key"),
    ],
)
def test_what_is_no_utf8_in_topic_or_properties_is_a_dead_letter(topic, malformed, reason) -> None:
    record = judge(Received(topic, payload(), properties=(("k", "\ufffd"),), malformed=malformed))
    assert record is not None
    assert (record.topic, record.reason, record.value) == ("dmp.info.dead", reason, payload())
    assert reason == "bad_key" or malformed in dict(record.headers)["dmpd-detail"].decode()


@pytest.mark.parametrize("name", ["u-team1", "svc-bridge", "op-x", "admin", "canary-x", "", "a b"])
def test_topics_of_no_rae_are_forgotten(name) -> None:
    assert judge(Received(f"dmp/v1/{name}/{SESSION}/info", payload(rae=name))) is None


@pytest.mark.parametrize(
    "topic", ["$SYS/broker/uptime/x", "dmp/v1", f"dmp/v1/A1/{SESSION}/cmd/u-x", "dmp/v1/A1/rae/ack"]
)
def test_other_topics_are_forgotten(topic) -> None:
    assert judge(Received(topic, payload())) is None


def test_the_canarys_raes_are_raes() -> None:
    record = judge(Received(f"dmp/v1/canary-0001/{SESSION}/info", payload(rae="canary-0001")))
    assert record is not None
    assert record.reason is None


def test_unknown_kinds_and_versions_pass_because_they_can_be_replayed_later() -> None:
    record = judge(Received(f"dmp/v1/A1/{SESSION}/info", payload(v=2, kind="hologram")))
    assert record is not None
    assert record.topic == "dmp.info"


@pytest.mark.parametrize(("epoch", "seq"), [(0, 1), (limits.EPOCH_MAX + 1, 1), (7, 0), (7, limits.INT64_MAX + 1)])
def test_rows_that_no_durable_could_name_are_none(epoch, seq) -> None:
    record = judge(Received(f"dmp/v1/A1/{SESSION}/info", payload(epoch=epoch, seq=seq)))
    assert record is not None
    assert record.row is None


def test_too_many_properties_are_a_dead_letter_without_them() -> None:
    record = judge(Received(f"dmp/v1/A1/{SESSION}/info", payload(), properties=(("x", "y" * HEADERS_BYTES_MAX),)))
    assert record is not None
    assert record.reason == "too_large"
    assert "mqtt-user-x" not in dict(record.headers)


def test_a_dead_letter_that_kafka_would_not_take_either_goes_without_its_value() -> None:
    record = judge(Received(f"dmp/v1/A1/{SESSION}/info", b"x" * TOPICS.max_message_bytes))
    assert record is not None
    assert record.value == b""
    assert dict(record.headers)["dmpd-truncated"] == b"1"


def test_what_kafka_refused_keeps_key_headers_and_row_as_a_dead_letter() -> None:
    record = judge(Received(f"dmp/v1/A1/{SESSION}/info", payload(seq=3)))
    assert record is not None
    dead = dead_letter(record, TOPICS, reason="undeliverable", detail="refused")
    assert (dead.topic, dead.key, dead.value, dead.row) == ("dmp.info.dead", record.key, record.value, record.row)
    assert dead.headers[: len(record.headers)] == record.headers
    assert dict(dead.headers)["dmpd-reason"] == b"undeliverable"
