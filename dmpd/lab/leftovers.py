"""Processes that a dead lab left behind: found by the mark in their environment, then killed."""

import os
import signal
import time
from pathlib import Path
from typing import Final

from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder
from dmpd.lab.supervision import MARK, Supervisor

_POLL_S: Final = 0.05
_GRACE_S: Final = 60.0
_KILL_S: Final = 10.0


def clean(folder: LabFolder) -> int:
    """End what a dead lab left running; blocks until it is gone. The caller holds the lab's lock.

    Its supervisord, if alive, ends the parts in their order; what is left after that is killed.

    Returns:
        How many processes had to be ended.

    Raises:
        ServerError: Something survives a kill.
    """
    found = processes_of(folder)
    supervisor = Supervisor(folder)
    if supervisor.is_running():
        supervisor.shutdown()
        _wait_gone(folder, _GRACE_S)
    for pid in processes_of(folder):
        _kill(pid)
    if not _wait_gone(folder, _KILL_S):
        raise ServerError(f"processes of a former lab survive a kill: {processes_of(folder)}")
    return len(found)


def processes_of(folder: LabFolder) -> list[int]:
    """Pids of all live processes that were started by the lab of ``folder``, as far as we may look."""
    mark = f"{MARK}={folder.root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # gone meanwhile


def _wait_gone(folder: LabFolder, timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while processes_of(folder):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True
