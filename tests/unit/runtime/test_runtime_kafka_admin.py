"""What becomes of a client whose question was not answered; what it asks is tried on a real Kafka elsewhere."""

import gc
import weakref

import pytest
from confluent_kafka.admin import AdminClient

from dmpd.runtime import kafka_admin
from dmpd.runtime.kafka import KafkaUnreachableError
from dmpd.runtime.kafka_admin import GroupProgress, Progress
from dmpd.runtime.settings import KafkaSettings

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")


@pytest.fixture
def no_collection():
    gc.disable()
    yield
    gc.enable()


def test_a_client_whose_question_failed_goes_at_once_with_its_threads(monkeypatch, no_collection):
    """Not with some later garbage collection, in whichever thread that runs."""
    made = []

    class Counted(AdminClient):
        def __init__(self, config):
            super().__init__(config)
            made.append(weakref.ref(self))

    monkeypatch.setattr(kafka_admin, "AdminClient", Counted)
    monkeypatch.setattr(kafka_admin, "_partitions", lambda *_: [0, 1])
    with pytest.raises(KafkaUnreachableError, match="topic t: "):
        GroupProgress(NOBODY, "g", "t", timeout_s=0.2).ask()
    (client,) = made
    assert client() is None


def test_lag_is_what_is_not_committed_and_without_a_commit_the_whole_log():
    assert Progress(ends={0: 10, 1: 7}, next={0: 4, 1: 7}).lag() == {0: 6, 1: 0}
