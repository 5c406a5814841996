"""One instance: a lock file that the kernel frees when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path


class AlreadyRunningError(Exception):
    """Another process holds the lock; the text says which."""


class InstanceLock:
    """Holds ``path`` from its making to ``release`` or the end of the process. Does not block.

    Raises:
        AlreadyRunningError: Somebody has it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise AlreadyRunningError(f"{path} is held by process {holder}: one instance only") from None
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
