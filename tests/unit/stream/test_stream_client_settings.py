"""librdkafka itself judges the settings: it refuses what a group protocol does not allow."""

import pytest
from confluent_kafka import Consumer, KafkaException

from dmpd.stream.client_settings import consumer_settings, group_settings, lingering, tuning
from dmpd.stream.settings import StreamSettings


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_client_takes_the_settings_of_each_protocol(protocol):
    settings = StreamSettings(group_protocol=protocol)
    Consumer(tuning(settings) | consumer_settings(settings)).close()


@pytest.mark.parametrize("linger_ms", [1, 50, 1000])
def test_the_broker_gathers_for_as_long_as_is_set_and_not_at_all_by_default(linger_ms):
    assert lingering(0) == {}
    found = tuning(StreamSettings(linger_ms=linger_ms))
    assert found["fetch.wait.max.ms"] == linger_ms
    assert found["fetch.min.bytes"] > 1
    assert found.keys() - tuning(StreamSettings()).keys() == {"fetch.min.bytes"}
    Consumer(found | consumer_settings(StreamSettings())).close()


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


def test_an_idle_client_asks_ten_times_a_second():
    """Each question names every partition: at twenty, 48 of them cost half a percent of a core."""
    assert tuning(StreamSettings())["fetch.wait.max.ms"] == 100
