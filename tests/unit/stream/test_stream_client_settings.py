"""librdkafka itself judges the settings: it refuses what a group protocol does not allow."""

import pytest
from confluent_kafka import Consumer, KafkaException

from dmpd.stream.client_settings import consumer_settings, group_settings, tuning
from dmpd.stream.settings import StreamSettings


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_client_takes_the_settings_of_each_protocol(protocol):
    settings = StreamSettings(group_protocol=protocol)
    Consumer(tuning(settings) | consumer_settings(settings)).close()


def test_what_one_protocol_needs_the_other_refuses():
    classic = group_settings(StreamSettings())
    for name in ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"):
        with pytest.raises(KafkaException):
            Consumer({"group.id": "g", "group.protocol": "consumer", name: classic[name]})


def test_rebalances_of_the_classic_protocol_are_incremental():
    assert group_settings(StreamSettings())["partition.assignment.strategy"] == "cooperative-sticky"


def test_a_heartbeat_may_be_lost_without_losing_the_session():
    for session_timeout_s in (2.0, 10.0, 1800.0):
        found = group_settings(StreamSettings(session_timeout_s=session_timeout_s))
        assert found["heartbeat.interval.ms"] * 4 <= found["session.timeout.ms"] == session_timeout_s * 1000
