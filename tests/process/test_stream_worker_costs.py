"""What a worker costs: to start, in memory, and when it dies.

Of the times, an order of magnitude: the machine is busy. ``workers`` of the benchmark has them.
"""

import pytest

from tests.support import mock_cluster, worker_costs
from tests.support.stream_group import Group, SteadyLoad

START_MAX_S = 0.2
PSS_MAX_MIB = 12.0
BALLAST_MIB = 16
DEATH_MAX_S = 1.0
DEATHS = 5


def test_workers_start_in_milliseconds_and_take_little_memory(tmp_path):
    took_s, sizes_mib, with_ballast_mib = worker_costs.start(tmp_path, ballast_mib=BALLAST_MIB)
    assert min(took_s) <= START_MAX_S
    assert max(sizes_mib) <= PSS_MAX_MIB
    assert with_ballast_mib > PSS_MAX_MIB, "what the bar is for would be seen"


@pytest.fixture
def cluster():
    with mock_cluster.running({"t": 1, "t-dead": 1}) as cluster:
        yield cluster


def test_after_a_death_the_next_worker_goes_on_at_once(tmp_path, cluster):
    with (
        Group(tmp_path, cluster.bootstrap, "t", 1) as group,
        SteadyLoad(cluster.bootstrap, "t", 1, per_s=200) as load,
    ):
        one = group.start("one")
        group.wait_flowing(0.0)
        took_s = worker_costs.die(group, one, DEATHS)
        assert min(took_s) <= DEATH_MAX_S
        assert one.status["partitions"]["0"]["restarts"] == DEATHS
        group.end(load, "one")
