"""What a worker costs: to start, in memory, and when it dies. Times are the best of many: the machine is busy."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dmpd.stream.settings import StreamSettings
from tests.support import mock_cluster
from tests.support.stream_daemon import wait_for
from tests.support.stream_group import Group, SteadyLoad
from tests.support.stream_record import read_lives
from tests.support.stream_rig import Rig, fork_server

WORKERS = 48
START_MAX_S = 0.020
PSS_MAX_MIB = 12.0
BALLAST_MIB = 16
DEATH_MAX_S = 0.100
DEATHS = 10


def pss_mib(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def test_workers_start_in_milliseconds_and_take_little_memory(tmp_path):
    """From the first look at a partition without a worker until its handler is made; with rings of the usual size."""
    took_s = []
    with fork_server(tmp_path) as server, ExitStack() as stack:
        rigs = [Rig(server, StreamSettings(), number) for number in range(WORKERS)]
        for rig in rigs:
            stack.callback(rig.end)
            began_s = time.monotonic()
            rig.tend_until(lambda rig=rig: rig.life is not None and rig.life.was_ready)
            took_s.append(time.monotonic() - began_s)
            rig.place([b"good" * 250] * 100)
            rig.tend_until_done()
        sizes_mib = [pss_mib(rig.life.pid) for rig in rigs]
        print(f"start: best {min(took_s):.4f} s, worst {max(took_s):.4f} s; PSS: at most {max(sizes_mib):.1f} MiB")
        assert min(took_s) <= START_MAX_S
        assert max(sizes_mib) <= PSS_MAX_MIB
        rigs[0].place([b"keep %d" % BALLAST_MIB])  # what the bar is for would be seen
        rigs[0].tend_until_done()
        assert pss_mib(rigs[0].life.pid) > PSS_MAX_MIB


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
        took_s = []
        for _ in range(DEATHS):
            old = wait_for(lambda: one.worker_pid(0), group.log)
            killed_s = time.monotonic()
            os.kill(old, signal.SIGKILL)
            took_s.append(wait_for(lambda: handled_by_another(tmp_path, old, killed_s), group.log) - killed_s)  # noqa: B023
            wait_for(lambda: one.worker_pid(0) not in (None, old), group.log)  # noqa: B023 - called at once
        print("from a death to the next record:", [f"{one_s:.3f}" for one_s in sorted(took_s)])
        assert min(took_s) <= DEATH_MAX_S
        assert one.status["partitions"]["0"]["restarts"] == DEATHS
        group.end(load, "one")


def handled_by_another(folder, old, since_s):
    """When a worker that is not ``old`` handled something, for the first time after ``since_s``; None = not yet."""
    return min(
        (h.at_s for h in read_lives(folder) if h.at_s > since_s and not h.life.endswith(f"-{old}")), default=None
    )
