"""kill -9 of one part of a running lab, by the name that people type."""

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from typing import Final

from dmpd.lab import daemon_config
from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder
from dmpd.lab.supervision import Supervisor
from dmpd.runtime import health

_WORKER_TIMEOUT_S: Final = 15.0
"""A Cloud Registry that was killed gets its partitions back after the group's session timeout of 10 s."""
_POLL_S: Final = 0.1
WORKER: Final = "worker"
"""One of the Cloud Registry's workers: no program of supervisord's, but the kill that its parent must repair."""


def killable(parts: Sequence[str]) -> list[str]:
    """What may be killed in a lab that runs ``parts``."""
    return [*parts, *([WORKER] if "cloud-registry" in parts else [])]


def kill(folder: LabFolder, part: str) -> int:
    """Kill ``part`` with signal 9 and return with the pid it had; supervisord or its parent starts it again.

    Does not block, but for a worker: the Cloud Registry may just be starting them, then it waits some seconds.

    Raises:
        ServerError: It does not run now, or there is no such part.
    """
    if part == WORKER:
        pid = _a_worker(folder)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError as error:
            raise ServerError(f"worker {pid} has just ended by itself") from error
        return pid
    supervisor = Supervisor(folder)
    states = {state.name: state for state in supervisor.states()}
    if part not in states:
        raise ServerError(f"there is no part {part}; there are {', '.join(killable(sorted(states)))}")
    if states[part].pid == 0:
        raise ServerError(f"{part} does not run now: {states[part].state}")
    supervisor.signal(part, "KILL")
    return states[part].pid


def _a_worker(folder: LabFolder) -> int:
    deadline_s = time.monotonic() + _WORKER_TIMEOUT_S
    while True:
        try:
            _, body = health.fetch(daemon_config.cloud_registry_health(folder), "/status")
        except OSError as error:
            raise ServerError(f"cloud-registry does not answer: {error}") from error
        pids = worker_pids(json.loads(body))
        if pids:
            return random.choice(pids)  # noqa: S311 - which worker dies is nobody's secret
        if time.monotonic() >= deadline_s:
            raise ServerError(f"cloud-registry has had no worker for {_WORKER_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)


def worker_pids(status: object) -> list[int]:
    """Pids of the workers in the Cloud Registry's ``/status``."""
    if not isinstance(status, dict):
        return []
    partitions = status.get("partitions", {})
    found = partitions.values() if isinstance(partitions, dict) else partitions
    return [int(entry["worker_pid"]) for entry in found if entry.get("worker_pid")]
