"""What workers cost: to start, in memory, and when one dies. For the test and for the benchmark."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from dmpd.stream.settings import StreamSettings
from tests.support.stream_daemon import wait_for
from tests.support.stream_record import read_lives
from tests.support.stream_rig import Rig, fork_server

WORKERS = 48


def pss_mib(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def start(folder, *, ballast_mib=0):
    """Start ``WORKERS``: seconds from the first look at a partition without one until its handler is made, and the
    memory of each, with rings of the usual size. With ``ballast_mib`` the first keeps so much, and what it takes then
    is returned too.
    """
    took_s = []
    with fork_server(folder) as server, ExitStack() as stack:
        rigs = [Rig(server, StreamSettings(), number) for number in range(WORKERS)]
        for rig in rigs:
            stack.callback(rig.end)
            began_s = time.monotonic()
            rig.tend_until(lambda rig=rig: rig.life is not None and rig.life.was_ready)
            took_s.append(time.monotonic() - began_s)
            rig.place([b"good" * 250] * 100)
            rig.tend_until_done()
        sizes_mib = [pss_mib(rig.life.pid) for rig in rigs]
        rigs[0].place([b"keep %d" % ballast_mib])
        rigs[0].tend_until_done()
        return took_s, sizes_mib, pss_mib(rigs[0].life.pid)


def die(group, one, count):
    """Kill the worker of partition 0 of ``one`` again and again: seconds from each death to the next record."""
    took_s = []
    for _ in range(count):
        old = wait_for(lambda: one.worker_pid(0), group.log)
        killed_s = time.monotonic()
        os.kill(old, signal.SIGKILL)
        next_s = wait_for(lambda: _handled_by_another(group.folder, old, killed_s), group.log)  # noqa: B023 - at once
        took_s.append(next_s - killed_s)
        wait_for(lambda: one.worker_pid(0) not in (None, old), group.log)  # noqa: B023 - called at once
    return took_s


def _handled_by_another(folder, old, since_s):
    """When a worker that is not ``old`` handled something, for the first time after ``since_s``; None = not yet."""
    return min(
        (h.at_s for h in read_lives(folder) if h.at_s > since_s and not h.life.endswith(f"-{old}")), default=None
    )
