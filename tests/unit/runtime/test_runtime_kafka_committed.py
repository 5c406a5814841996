"""A group's coordinator that is on its way is waited for; nothing else is."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from dmpd.runtime.kafka_committed import committed

ASKED = [TopicPartition("t", 0)]


class Scripted:
    """Answers with what it was given, one after the other, then always with the last."""

    def __init__(self, *codes):
        self.codes = list(codes)
        self.asked = 0

    def committed(self, partitions, timeout_s):
        assert timeout_s >= 0
        self.asked += 1
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code:
            raise KafkaException(KafkaError(code))
        return partitions


def test_a_coordinator_on_its_way_is_waited_for():
    consumer = Scripted(KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, 0)
    assert committed(consumer, ASKED, 30.0) == ASKED
    assert consumer.asked == 3


def test_one_that_does_not_come_is_told_in_time():
    consumer = Scripted(KafkaError.COORDINATOR_NOT_AVAILABLE)
    with pytest.raises(KafkaException, match="COORDINATOR_NOT_AVAILABLE"):
        committed(consumer, ASKED, 0.35)
    assert 1 < consumer.asked <= 4


def test_another_trouble_is_told_at_once():
    consumer = Scripted(KafkaError.GROUP_AUTHORIZATION_FAILED, 0)
    with pytest.raises(KafkaException):
        committed(consumer, ASKED, 30.0)
    assert consumer.asked == 1
