"""What a producer promises stands in its configuration, and neither a caller nor a site can take it away."""

import pytest

from dmpd.runtime import kafka
from dmpd.runtime.kafka import Producer
from dmpd.runtime.settings import KafkaSettings

SAFE = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": 0}


@pytest.fixture
def made(monkeypatch):
    """The configurations of the clients that are made."""
    found = []
    monkeypatch.setattr(kafka.confluent_kafka, "Producer", found.append)
    return found


def test_it_waits_for_all_replicas_and_gives_nothing_up_whatever_is_configured(made):
    Producer(KafkaSettings(), "test")
    Producer(KafkaSettings(options={"acks": "1", "message.timeout.ms": 1000, "enable.idempotence": False}), "test")
    Producer(KafkaSettings(), "test", acks="1", message_timeout_ms=1000, enable_idempotence=False)
    assert [{name: config[name] for name in SAFE} for config in made] == [SAFE] * 3


def test_what_is_no_promise_can_be_configured(made):
    Producer(KafkaSettings(options={"retry.backoff.ms": 50}), "test", linger_ms=0)
    assert (made[0]["retry.backoff.ms"], made[0]["linger.ms"]) == (50, 0)
