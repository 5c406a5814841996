"""A client that fails for good is replaced; what it had is fetched again from what is committed."""

import re

import pytest

from tests.support import mock_cluster
from tests.support.stream_daemon import wait_for
from tests.support.stream_group import Group, SteadyLoad
from tests.support.stream_record import read_lives

TOPIC = "t"
PARTITIONS = 2


@pytest.fixture
def cluster():
    with mock_cluster.running({TOPIC: PARTITIONS, f"{TOPIC}-dead": 1}) as cluster:
        yield cluster


def test_partitions_go_on_at_the_committed_offset_under_a_new_client(tmp_path, cluster):
    load = SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS)
    with Group(tmp_path, cluster.bootstrap, TOPIC, PARTITIONS, commit_interval_s=0.2) as group:
        one = group.start("one")
        load.send(50)
        wait_for(lambda: [p["committed"] for p in one.status["partitions"].values()] == [50, 50], group.log)
        (group.folder / "dead").touch()
        load.send(30)
        wait_for(lambda: [p["ring_used_bytes"] > 0 for p in one.status["partitions"].values()] == [True] * 2, group.log)
        old = {one.worker_pid(0), one.worker_pid(1)}
        (group.folder / "fatal").touch()
        waits_s = wait_for(lambda: re.findall("failed: .*planted.*; another one joins in (.*) s", one.log), group.log)
        assert float(waits_s[0]) <= 2.0
        wait_for(lambda: one.log.count("assigned: 0 from 50, 1 from 50") == 1, group.log)
        (group.folder / "dead").unlink()
        group.check_all_handled({0: 80, 1: 80})
        news = {int(h.life.split("-")[2]) for h in read_lives(tmp_path) if h.offset >= 50}
        assert news.isdisjoint(old), "the workers of the old assignment were killed with what they had"
        load.stop()
        one.terminate()
        assert one.exit_code() == 0, group.log()
        assert group.committed() == load.counts


@pytest.mark.slow
def test_clients_that_fail_one_after_the_other_wait_longer_each_time(tmp_path, cluster):
    with Group(tmp_path, cluster.bootstrap, TOPIC, PARTITIONS) as group:
        one = group.start("one")
        for failures in (1, 2, 3):
            (group.folder / "fatal").touch()
            wait_for(lambda: one.log.count("another one joins in") == failures, group.log)  # noqa: B023 - called at once
        waits_s = [float(found) for found in re.findall("another one joins in (.*) s", one.log)]
        one.terminate()
        assert one.exit_code() == 0, group.log()
    # Shortened at random by up to a half, and printed with one digit.
    assert all(0.25 * 2**n - 0.06 <= wait_s <= 0.5 * 2**n + 0.06 for n, wait_s in enumerate(waits_s)), waits_s
