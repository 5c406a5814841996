"""Golden vectors: what edge and cloud of every version agree on. A vector is never changed, only added."""

import base64
import json
from pathlib import Path

import pytest

from dmpd.model.codec import INVALID_REASONS, InvalidMessageError, decode, decode_record, encode
from dmpd.model.topics import parse_topic

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
VALID = json.loads((VECTORS / "valid.json").read_text())
INVALID = json.loads((VECTORS / "invalid.json").read_text())


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_valid_vector_decodes_to_its_fields(vector):
    message = decode(vector["payload"].encode(), parse_topic(vector["topic"]))
    assert json.loads(encode(message)) == vector["decoded"]


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_message_survives_encoding(vector):
    topic = parse_topic(vector["topic"])
    message = decode(vector["payload"].encode(), topic)
    again = decode(encode(message), topic)
    assert type(again) is type(message)
    assert again == message


def test_every_kind_has_a_valid_vector():
    kinds = {vector["decoded"]["kind"] for vector in VALID}
    assert kinds == {
        "change",
        "checkpoint",
        "closed",
        "event",
        "status",
        "roster",
        "durable",
        "request",
        "response",
    }


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["name"])
def test_invalid_vector_is_refused_for_its_reason(vector):
    payload = base64.b64decode(vector["payload_base64"]) if "payload_base64" in vector else vector["payload"].encode()
    with pytest.raises(InvalidMessageError) as refusal:
        decode_record(vector["topic"].encode(), payload)
    assert refusal.value.reason == vector["reason"]


def test_every_reason_but_too_large_payloads_has_an_invalid_vector():
    assert {vector["reason"] for vector in INVALID} == set(INVALID_REASONS)
