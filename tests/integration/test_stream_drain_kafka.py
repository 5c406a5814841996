"""Stops while a real Kafka is frozen: nothing answers, the client's close never returns, the deadline holds."""

import time

import pytest

from tests.support.services import public_folder, start_kafka
from tests.support.stream_daemon import wait_for
from tests.support.stream_group import Group, SteadyLoad

pytestmark = [pytest.mark.services, pytest.mark.slow]

PARTITIONS = 2
DRAIN_S = 3.0
LATE_S = 20.0


def test_a_frozen_kafka_does_not_hold_a_stop(tmp_path):
    with public_folder() as folder, start_kafka(folder) as kafka:
        topic = kafka.create_topic(partitions=PARTITIONS)
        kafka.create_topic(f"{topic}-dead")
        load = SteadyLoad(kafka.bootstrap_servers, topic, PARTITIONS)
        rarely = {"commit_interval_s": 600.0, "commit_records": 1_000_000}
        with Group(tmp_path, kafka.bootstrap_servers, topic, PARTITIONS, drain_timeout_s=DRAIN_S, **rarely) as group:
            one = group.start("one")
            load.send(1)
            wait_for(lambda: [p["committed"] for p in one.status["partitions"].values()] == [1, 1], group.log)
            load.send(20)
            group.check_all_handled(load.counts)
            kafka.process.freeze()
            try:
                asked_s = time.monotonic()
                one.terminate()
                assert one.exit_code() == 70, group.log()
                print("stopped with a frozen Kafka after", time.monotonic() - asked_s)
                assert time.monotonic() - asked_s < LATE_S
                assert "back to Kafka: 0: all handled, but the commit of 21 is not answered" in one.log
            finally:
                kafka.process.thaw()
            two = group.start("two")
            load.send(5)
            group.check_all_handled(load.counts)
            two.terminate()
            assert two.exit_code() == 0, group.log()
            assert group.committed() == load.counts
