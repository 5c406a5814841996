"""How a worker ended, as a sentence for logs and dead letters; pure but for ``oom_kills``."""

import logging
import os
import signal
from pathlib import Path

_log = logging.getLogger(__name__)


def sentence(status: int | None, *, killed_because: str, said: str, memory_ran_out: bool) -> str:
    """How it ended.

    Args:
        status: As ``waitpid`` gives it; None = nobody knows (its fork server died with it).
        killed_because: Why the parent killed it; empty = the parent did not.
        said: Its own last words about a failure, or empty.
        memory_ran_out: Whether the kernel killed any process for memory during its life.

    Returns:
        ``killed as stuck``, ``killed by SIGKILL, maybe out of memory``, ``ended by SIGSEGV``,
        ``exit status 70: handler failed: ValueError: no such table``.
    """
    if killed_because:
        return killed_because
    how = _how(status, memory_ran_out=memory_ran_out)
    return f"{how}: {said}" if said else how


def _how(status: int | None, *, memory_ran_out: bool) -> str:
    if status is None:
        return "ended, how is not known"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    if -code == signal.SIGKILL:
        return f"killed by SIGKILL, {'maybe out of memory' if memory_ran_out else 'from outside'}"
    return f"ended by {_signal_name(-code)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for memory since it started, on this machine; 0 if it does not say."""
    try:
        for line in vmstat.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError) as error:
        _log.debug("%s: %s", vmstat, error)
    return 0
