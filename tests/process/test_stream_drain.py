"""How a stream ends: in order, late, at once, whatever the sink and Kafka do, and what the next one begins with."""

import os
import re
import signal
import time

import pytest

from tests.support import mock_cluster
from tests.support.stream_daemon import wait_for
from tests.support.stream_group import Group, SteadyLoad
from tests.support.stream_record import read_lives
from tests.support.stream_rules import repeats

TOPIC = "t"
PARTITIONS = 2
LATE_S = 20.0
"""A deadline of 2 s is told from one that does not hold, on a busy machine too."""


@pytest.fixture
def cluster():
    with mock_cluster.running({TOPIC: PARTITIONS, f"{TOPIC}-dead": 1}) as cluster:
        yield cluster


@pytest.fixture
def load(cluster):
    return SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS)


@pytest.fixture
def group(tmp_path, cluster):
    # Rare commits, so that what is committed in the end is what the drain committed.
    rarely = {"commit_interval_s": 60.0, "commit_records": 1_000_000}
    with Group(tmp_path, cluster.bootstrap, TOPIC, PARTITIONS, **rarely) as group:
        yield group


def fed(group, name="one"):
    """Wait until its rings hold something."""
    one = group.instances[name]
    wait_for(
        lambda: [p["ring_used_bytes"] > 0 for p in one.status["partitions"].values()] == [True] * PARTITIONS,
        group.log,
    )
    return one


def ends(daemon, code, *, within_s=40.0):
    began_s = time.monotonic()
    assert daemon.exit_code() == code, daemon.log
    took_s = time.monotonic() - began_s
    assert took_s < within_s, daemon.log
    return took_s


def handled_counts(group):
    counts = dict.fromkeys(range(PARTITIONS), 0)
    for one in read_lives(group.folder):
        counts[one.partition] = max(counts[one.partition], one.offset + 1)
    return counts


def ask(daemon):
    daemon.terminate()


def whole_group(daemon):
    os.killpg(daemon.process.pid, signal.SIGTERM)


@pytest.mark.parametrize("stop", [pytest.param(ask, marks=pytest.mark.slow), whole_group])
def test_a_slow_sink_is_waited_for_and_the_next_instance_repeats_nothing(group, load, stop):
    """A sink at a fifth of its speed when the stop comes: what was fetched is handled and committed, to the record."""
    (group.folder / "dead").touch()
    one = group.start("one", options={"record_s": 0.005}, own_group=True)
    with load:
        load.send(200)
        fed(group)
        (group.folder / "dead").unlink()
        stop(one)
        ends(one, 0)
    assert "died" not in one.log, "workers and fork server ignore the signal"
    handled = handled_counts(group)
    assert sum(handled.values()) > 0
    assert group.committed() == handled
    group.start("two", options={"record_s": 0.0})
    group.check_all_handled(load.counts)
    assert repeats(read_lives(group.folder)) == 0
    assert {one.life.split("-")[0] for one in read_lives(group.folder)} == {"one", "two"}


def test_a_dead_sink_ends_at_the_deadline_with_a_line_of_what_goes_back(group, load):
    (group.folder / "dead").touch()
    one = group.start("one", drain_timeout_s=2.0)
    load.send(30)
    fed(group)
    one.terminate()
    ends(one, 70, within_s=LATE_S)
    assert "the drain did not end in time; back to Kafka: 0: 30 records from offset 0, 1: 30 records" in one.log
    (group.folder / "dead").unlink()
    group.start("two")
    group.check_all_handled(load.counts)


@pytest.mark.slow
@pytest.mark.parametrize("session_timeout_s", [60.0, 2.0])
def test_a_dead_kafka_ends_by_the_deadline_and_says_that_the_commit_is_not_answered(
    group, load, cluster, session_timeout_s
):
    """Either the drain's time is up, or the session's is before it: partitions that are lost were not drained."""
    one = group.start("one", drain_timeout_s=4.0, session_timeout_s=session_timeout_s)
    load.send(1)
    group.check_all_handled(load.counts)
    # The first commit holds what was handled by then, the next one waits for a minute.
    wait_for(lambda: 1 in [p["committed"] for p in one.status["partitions"].values()], group.log)
    load.send(20)
    group.check_all_handled(load.counts)
    cluster.down()
    one.terminate()
    ends(one, 70, within_s=LATE_S)
    why = "the drain did not end in time" if session_timeout_s > 4 else "lost while draining"
    assert f"{why}; back to Kafka: 0: all handled, but the commit of 21 is not answered" in one.log


@pytest.mark.slow
def test_a_stop_in_the_middle_of_a_rebalance(group, load, cluster):
    """The second joins; while the first gives up a partition whose sink is slow, both are told to end."""
    group.start("one", options={"record_s": 0.025})  # slower than the load: its rings hold something whenever one looks
    group.wait_shared("one")
    with load:
        fed(group)
        two = group.start("two", options={"record_s": 0.002})
        wait_for(lambda: "revoked: " in group.instances["one"].log, group.log)
        group.instances["one"].terminate()
        two.terminate()
        ends(group.instances["one"], 0)
        ends(two, 0)
    group.start("three")
    group.check_all_handled(load.counts)


@pytest.mark.slow
def test_a_draining_instance_that_is_given_a_partition_begins_nothing(group, load):
    group.start("one")
    group.wait_shared("one")
    two = group.start("two")
    group.wait_shared("one", "two")
    (group.folder / "dead-one").touch()
    load.send(20)
    mine = group.owned("one")
    wait_for(
        lambda: all(p["ring_used_bytes"] > 0 for p in group.instances["one"].status["partitions"].values()), group.log
    )
    group.instances["one"].terminate()
    wait_for(lambda: group.instances["one"].status["state"] == "draining", group.log)
    two.process.kill()
    given = wait_for(
        lambda: re.search("assigned while draining, not begun: (.*)", group.instances["one"].log), group.log
    )
    assert set(map(int, re.findall(r"\d+", given[1]))).isdisjoint(mine)
    load.send(20)
    (group.folder / "dead-one").unlink()
    ends(group.instances["one"], 0)
    assert {one.partition for one in read_lives(group.folder) if one.life.startswith("one")} == mine
    group.start("three")
    group.check_all_handled(load.counts)


@pytest.mark.slow
def test_the_deadline_holds_while_the_loop_hangs(group, load, cluster):
    """The loop stands in a call that neither returns nor lets Python's signal handlers run."""
    (group.folder / "dead").touch()
    one = group.start("one", drain_timeout_s=2.0)
    load.send(10)
    fed(group)
    (group.folder / "stand").touch()
    wait_for((group.folder / "stands").exists, group.log)
    one.terminate()
    ends(one, 70, within_s=LATE_S)
    assert "the drain's deadline passed while the loop hangs; back to Kafka: 0: 10 records from offset 0" in one.log


def test_a_second_stop_ends_a_loop_that_hangs(group, load, cluster):
    (group.folder / "dead").touch()
    one = group.start("one", drain_timeout_s=600.0)
    load.send(10)
    fed(group)
    (group.folder / "stand").touch()
    wait_for((group.folder / "stands").exists, group.log)
    # Signals of one kind that are pending at once are one, so a single second TERM could go unseen.
    wait_for(lambda: one.process.poll() is not None or one.terminate(), group.log, timeout_s=LATE_S)
    ends(one, 70)
    assert "stopped a second time while the loop hangs; back to Kafka: 0: 10 records" in one.log


def test_a_drain_asked_for_by_post_ends_as_one_by_term_does(group, load):
    (group.folder / "dead").touch()
    one = group.start("one")
    load.send(100)
    fed(group)
    code, answer = one.ask("/drain")
    assert code == 202, answer
    one.ask("/drain")  # asked twice is asked once: no second stop
    (group.folder / "dead").unlink()
    ends(one, 0)
    assert group.committed() == handled_counts(group) == load.counts
