"""What the processes of a memory cgroup (v1) hold that cannot be given back: looked at all the time, the most is kept.

The kernel's own maximum counts the page cache too, which always grows to the limit.
"""

import threading
from pathlib import Path
from typing import Self

MEMORY = Path("/sys/fs/cgroup/memory")
_EVERY_S = 0.02


class PeakMemory:
    """``with PeakMemory(folder) as peak:`` … ``peak.bytes``: anonymous and shared memory, the most seen so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0
        self.parts: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            try:
                lines = (self.folder / "memory.stat").read_text().splitlines()
            except OSError:  # the group is gone
                return
            found = {name: int(value) for name, value in map(str.split, lines) if name in ("rss", "shmem")}
            if (now := sum(found.values())) > self.bytes:
                self.bytes, self.parts = now, found
