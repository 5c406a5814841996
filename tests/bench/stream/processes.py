"""CPU time and memory of a process and all it started."""

from collections.abc import Iterable
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, without it."""
    found: list[int] = []
    for task in _tasks(pid):
        children = _read(task / "children").split()
        for child in map(int, children):
            found += [child, *descendants(child)]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """What all threads of these processes have used; nanosecond counters, not the ticks of ``stat``."""
    spent_ns = 0
    for pid in pids:
        for task in _tasks(pid):
            spent_ns += int((_read(task / "schedstat").split() or ["0"])[0])
    return spent_ns / 1e9


def pss_mib(pids: Iterable[int]) -> float:
    """Memory that these processes account for; what is shared counts in parts."""
    found = 0
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            if line.startswith("Pss:"):
                found += int(line.split()[1])
    return found / 1024


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return ""
