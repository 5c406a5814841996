"""What workers have handled, in a file that they and the benchmark map: no call between them, so nothing is slowed."""

import mmap
import os
from pathlib import Path

PARTITIONS_MAX = 64
_WORDS = 8
_COUNT, _BYTES, _FIRST_NS, _LAST_NS = range(4)


class Counters:
    """Eight words of 64 bits per partition; only its worker writes them. Times are CLOCK_MONOTONIC, the machine's."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, PARTITIONS_MAX * _WORDS * 8)
        self._map = mmap.mmap(fd, 0)
        os.close(fd)
        self._words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        self._words.release()
        self._map.close()

    def begin(self, partition: int, now_ns: int) -> None:
        if not self._words[partition * _WORDS + _FIRST_NS]:
            self._words[partition * _WORDS + _FIRST_NS] = now_ns

    def add(self, partition: int, records: int, size_bytes: int, now_ns: int) -> None:
        at = partition * _WORDS
        self._words[at + _COUNT] += records
        self._words[at + _BYTES] += size_bytes
        self._words[at + _LAST_NS] = now_ns

    def count(self, partition: int, records: int) -> None:
        self._words[partition * _WORDS + _COUNT] += records

    def counts(self) -> list[int]:
        """Records handled, by partition."""
        return [self._of(n, _COUNT) for n in range(PARTITIONS_MAX)]

    @property
    def records(self) -> int:
        return sum(self.counts())

    @property
    def bytes(self) -> int:
        return sum(self._of(n, _BYTES) for n in range(PARTITIONS_MAX))

    @property
    def took_s(self) -> float:
        """From the first record of all to the last."""
        firsts = [self._of(n, _FIRST_NS) for n in range(PARTITIONS_MAX)]
        lasts = [self._of(n, _LAST_NS) for n in range(PARTITIONS_MAX)]
        return (max(lasts) - min(first for first in firsts if first)) / 1e9

    def _of(self, partition: int, word: int) -> int:
        return self._words[partition * _WORDS + word]
