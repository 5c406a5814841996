"""Instances come and go under load, on the mock cluster: nothing is lost, skipped or left idle."""

import pytest

from tests.support import mock_cluster
from tests.support import stream_scenarios as scenarios
from tests.support.stream_group import Group, SteadyLoad

pytestmark = pytest.mark.slow  # the real Kafka has the most telling one of them in every run

PARTITIONS = 6
TOPIC = "t"


@pytest.fixture
def cluster():
    with mock_cluster.running({TOPIC: PARTITIONS, f"{TOPIC}-dead": 1}) as cluster:
        yield cluster


@pytest.fixture
def load(cluster):
    with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS) as load:
        yield load


@pytest.fixture
def group(tmp_path, cluster):
    with Group(tmp_path, cluster.bootstrap, TOPIC, PARTITIONS, commit_interval_s=0.3) as group:
        yield group


def test_one_two_and_three_instances_join_and_leave(group, load):
    scenarios.begun(group, load)
    print("two joins: kept silent, taken", scenarios.join(group, "two", others=["one"]))
    print("three joins: kept silent, taken", scenarios.join(group, "three", others=["one", "two"]))
    print("one leaves: kept silent, taken", scenarios.leave(group, "one", others=["two", "three"]))
    print("three leaves: kept silent, taken", scenarios.leave(group, "three", others=["two"]))
    group.end(load, "two")


def test_a_killed_and_a_frozen_instance_are_replaced(group, load):
    scenarios.begun(group, load)
    scenarios.join(group, "two", others=["one"])
    print("two killed: kept silent, taken", scenarios.kill(group, "two", others=["one"]))
    scenarios.join(group, "three", others=["one"])
    print("three frozen: taken", scenarios.freeze_past_the_session(group, "three", others=["one"]))
    group.end(load, "one", "three")
