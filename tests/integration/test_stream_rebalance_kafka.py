"""Instances come and go under load, on a real Kafka: times, both group protocols, and zombies."""

import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.support import stream_scenarios as scenarios
from tests.support.stream_daemon import wait_for
from tests.support.stream_group import Group, SteadyLoad, freeze, thaw
from tests.support.stream_record import read_lives
from tests.support.stream_watches import Bystander, CommittedWatch

pytestmark = pytest.mark.services

PARTITIONS = 6
SESSION_S = 3.0
BROKERS_SESSION_S = 4.0
"""In the group protocol in which it is the broker's: dmpd/lab/kafka.properties.in."""
SILENCE_MAX_S = 1.5
TAKEOVER_MAX_S = 2.0
"""Beyond the session."""
MACHINE_IS_BUSY_S = 2.0
"""Added to both, and what a bystander waited longest for a record: other tests run beside these."""


@pytest.fixture
def topic(kafka):
    name = kafka.create_topic(partitions=PARTITIONS)
    kafka.create_topic(f"{name}-dead")
    return name


@pytest.fixture
def load(kafka, topic):
    with SteadyLoad(kafka.bootstrap_servers, topic, PARTITIONS) as load:
        yield load


@pytest.fixture
def bystander(kafka, topic, load):
    with Bystander(kafka.bootstrap_servers, topic, PARTITIONS) as bystander:
        yield bystander


@pytest.fixture
def group(tmp_path, kafka, topic):
    settings = {"session_timeout_s": SESSION_S, "commit_interval_s": 0.3}
    with Group(tmp_path, kafka.bootstrap_servers, topic, PARTITIONS, **settings) as group:
        yield group


@pytest.mark.slow
def test_one_two_and_three_instances_join_leave_and_die(group, load, bystander):
    judge(moves(group, load), SESSION_S, bystander)


@pytest.mark.slow
def test_the_brokers_group_protocol_does_the_same(group, load, bystander):
    """KIP-848; the session's length is the broker's."""
    group.settings["group_protocol"] = "consumer"
    judge(moves(group, load), BROKERS_SESSION_S, bystander)


def moves(group, load):
    """Silence of those that stay, and time until the others were taken, by move."""
    scenarios.begun(group, load)
    seconds = {
        "two joins": scenarios.join(group, "two", others=["one"]),
        "three joins": scenarios.join(group, "three", others=["one", "two"]),
        "one leaves": scenarios.leave(group, "one", others=["two", "three"]),
        "three killed": scenarios.kill(group, "three", others=["two"]),
    }
    group.end(load, "two")
    return seconds


def judge(seconds, session_s, bystander):
    print("kept silent, taken:", seconds, "a bystander waited", bystander.longest_wait_s)
    room_s = MACHINE_IS_BUSY_S + bystander.longest_wait_s
    assert max(kept_silence_s for kept_silence_s, _ in seconds.values()) <= SILENCE_MAX_S + room_s
    assert seconds["three killed"][1] <= session_s + TAKEOVER_MAX_S + room_s


def test_a_zombies_late_acknowledgements_never_reach_the_broker(group, load, kafka, topic):
    """It stands still beyond its session while its workers go on: what they release then is another's by now."""
    with CommittedWatch(kafka.bootstrap_servers, topic, topic, PARTITIONS) as watch:
        scenarios.begun(group, load)
        scenarios.join(group, "two", others=["one"])
        (group.folder / "dead-two").touch()
        mine = group.owned("two")
        two = group.instances["two"]
        wait_for(lambda: all(map(stands_still, two.status["partitions"].values())), group.log)
        since_s = time.monotonic()
        freeze(two)
        taken = scenarios.taken_over(group, mine, since_s, ["one"])
        (group.folder / "dead-two").unlink()
        zombies_from_s = time.monotonic()
        group.wait_flowing(zombies_from_s, by="two", partitions=mine)
        wait_for(lambda: all(group.committed()[n] > 0 for n in mine), group.log)
        thaw(two)
        wait_for(lambda: "lost: " in two.log, group.log)
        group.wait_shared("one", "two")
        group.wait_flowing(time.monotonic(), by="two", partitions=group.owned("two"))
        print("frozen: taken", taken)
        group.end(load, "one", "two")
        assert watch.looks > 50
        assert watch.went_back == []
        assert any(one.life.startswith("two") and one.at_s > zombies_from_s for one in read_lives(group.folder))
        pull_back(kafka, topic)
        wait_for(lambda: watch.went_back, "the watch sees an offset that goes back")


def stands_still(partition):
    """Its worker is in one batch for so long that it was told of more since."""
    return partition["ring_used_bytes"] > 2000 and partition["oldest_age_s"] > 1.0


def pull_back(kafka, topic):
    """What a zombie's commit would look like."""
    client = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic})
    client.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    client.close()
