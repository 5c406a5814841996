"""Which record Kafka refuses, when it refuses a whole batch for it. Pure.

A refused batch ends the producer, so that nothing passes what was refused. The next producer sends each record alone:
the one that is refused then is at fault, and becomes a dead letter when the broker delivers it again.
"""

import hashlib
from typing import Final

_CONDEMNED_MAX: Final = 1_000


class Blame:
    """State over the producers' lives."""

    def __init__(self, *, careful_s: float) -> None:
        self._careful_s = careful_s
        self._careful_until_s: float | None = None
        self._condemned: dict[bytes, str] = {}

    @property
    def careful(self) -> bool:
        """Whether records have to go one by one."""
        return self._careful_until_s is not None

    @property
    def condemned(self) -> int:
        """How many records are known to be refused and were not seen again yet."""
        return len(self._condemned)

    def refused(self, key: bytes, value: bytes, sentence: str, now_s: float) -> None:
        """Note the first record of a batch that Kafka refused for what it is."""
        if self.careful:
            while len(self._condemned) >= _CONDEMNED_MAX:
                del self._condemned[next(iter(self._condemned))]
            self._condemned[_digest(key, value)] = sentence
        self._careful_until_s = now_s + self._careful_s

    def sentence_for(self, key: bytes, value: bytes) -> str | None:
        """Why this record is refused, or None. Says so once: it is dealt with now."""
        return self._condemned.pop(_digest(key, value), None)

    def found(self, now_s: float) -> None:
        """The record at fault was dealt with: records may go in batches again."""
        if not self._condemned:
            self._careful_until_s = now_s

    def is_over(self, now_s: float) -> bool:
        """Whether it is time for batches again: once nothing is in flight, call ``trust``."""
        return self._careful_until_s is not None and now_s >= self._careful_until_s and not self._condemned

    def trust(self) -> None:
        self._careful_until_s = None


def _digest(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(len(key).to_bytes(4) + key + value, digest_size=16).digest()
