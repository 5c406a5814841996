"""The life of a lab from its lock to its end, whatever the reason for the end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from dmpd.lab import leftovers
from dmpd.lab.lan_parts import LanParts
from dmpd.lab.platform import Lab, LabSize
from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder

_END_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.05


class StopFlag:
    """Set by INT, TERM and HUP alike; asked by everything that waits."""

    def __init__(self) -> None:
        self._requested = False

    def install(self) -> None:
        """Take over the three signals of this process. Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._set)

    def __call__(self) -> bool:
        return self._requested

    def _set(self, number: int, frame: FrameType | None) -> None:
        self._requested = True


@contextmanager
def running_lab(
    folder: LabFolder, size: LabSize, *, dmpd: str, say: Callable[[str], None], stop_requested: Callable[[], bool]
) -> Iterator[Lab]:
    """A lab that is up inside the context and gone behind it; its folder goes too unless something failed.

    Raises:
        LabRunningError: One runs already; nothing was touched.
        LabStateError: The folder cannot be used.
        ServerError: A step failed. Everything is down again; the logs are kept for a look.
        LabInterruptedError: ``stop_requested`` while it was starting. Everything is down again.
    """
    lock = folder.lock()
    try:
        lab = Lab(folder, size, dmpd=dmpd, say=say, stop_requested=stop_requested)
        try:
            lab.up()
            yield lab
        finally:
            with suppress(OSError):  # the terminal may be gone, which is no reason to leave things behind
                say("ending the parts: RAEs, bridge, cloud-registry, servers")
            lab.down()
        folder.remove()
    finally:
        lock.release()


def end_running_lab(folder: LabFolder) -> bool:
    """Ask the process that runs the lab to end it, and wait until it has.

    Returns:
        Whether there was one.

    Raises:
        ServerError: It is still there after its parts' time to drain.
    """
    if not folder.is_locked():
        return False
    pid = folder.holder_pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _END_TIMEOUT_S
    while folder.is_locked():
        if time.monotonic() > deadline_s:
            raise ServerError(f"the lab (pid {pid}) does not end; see {folder.log}")
        time.sleep(_POLL_S)
    return True


def clean_dead_lab(folder: LabFolder) -> int:
    """End and remove what a lab that died left behind; returns how many processes that were.

    Raises:
        LabRunningError: It is alive.
        LabStateError, ServerError: As they say.
    """
    lock = folder.lock()
    try:
        ended = leftovers.clean(folder)
        if LanParts.unavailable_reason() is None:
            LanParts(folder).down()
        folder.remove()
    finally:
        lock.release()
    return ended
