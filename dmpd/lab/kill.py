"""kill -9 of one part of a running lab, by the name that people type."""

import json
import os
import random
import signal
from collections.abc import Sequence
from typing import Final

from dmpd.lab import daemon_config
from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder
from dmpd.lab.supervision import Supervisor
from dmpd.runtime import health

WORKER: Final = "worker"
"""One of the Cloud Registry's workers: no program of supervisord's, but the kill that its parent must repair."""


def killable(parts: Sequence[str]) -> list[str]:
    """What may be killed in a lab that runs ``parts``."""
    return [*parts, *([WORKER] if "cloud-registry" in parts else [])]


def kill(folder: LabFolder, part: str) -> int:
    """Kill ``part`` with signal 9 and return at once with the pid it had; supervisord or its parent starts it again.

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
    try:
        _, body = health.fetch(daemon_config.cloud_registry_health(folder), "/status")
    except OSError as error:
        raise ServerError(f"cloud-registry does not answer: {error}") from error
    pids = worker_pids(json.loads(body))
    if not pids:
        raise ServerError("cloud-registry has no worker now")
    return random.choice(pids)  # noqa: S311 - which worker dies is nobody's secret


def worker_pids(status: object) -> list[int]:
    """Pids of the workers in the Cloud Registry's ``/status``."""
    if not isinstance(status, dict):
        return []
    partitions = status.get("partitions", {})
    found = partitions.values() if isinstance(partitions, dict) else partitions
    return [int(entry["worker_pid"]) for entry in found if entry.get("worker_pid")]
