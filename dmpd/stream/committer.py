"""When to commit what, and what is known to be committed: pure, ``now_s`` monotonic and passed in.

The broker checks a member's id and generation, not which partitions it owns and not that offsets grow: it accepts
foreign and lower ones. So each candidate carries its assignment epoch, and only the current assignment's are offered.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

_HURRY_S: Final = 0.2
"""Between attempts that nothing else would delay, after one that was refused."""


class Candidate(NamedTuple):
    """What could be committed for one owned partition."""

    epoch: int
    offset: int
    passed_records: int
    """Records that the frontier has passed since the partition was assigned."""


class _Committed(NamedTuple):
    epoch: int
    offset: int
    passed_records: int


class Committer:
    """One commit in flight, each with its own deadline. Commits per ``records`` or ``interval_s``, or to repeat."""

    def __init__(self, *, records: int, interval_s: float, repeat_s: float, deadline_s: float) -> None:
        self._records: Final = records
        self._interval_s: Final = interval_s
        self._repeat_s: Final = repeat_s
        self._deadline_s: Final = deadline_s
        self._committed: dict[int, _Committed] = {}
        self._in_flight: dict[int, Candidate] | None = None
        self._sent_at_s = float("-inf")
        self._repeated_at_s = float("-inf")
        """When all candidates were committed, changed or not."""
        self._waiting_since_s: float | None = None
        self._forgotten: set[int] = set()
        """Since the commit in flight was sent: its answer says nothing of them."""

    def due(self, candidates: Mapping[int, Candidate], now_s: float, *, at_once: bool = False) -> dict[int, int]:
        """Offsets to commit now; empty = nothing. ``at_once``: do not wait for records or interval (draining)."""
        if self._in_flight is not None:
            if now_s - self._sent_at_s < self._deadline_s:
                return {}
            self._in_flight = None
        changed = {p: c for p, c in candidates.items() if self._is_new(p, c)}
        waited_s = now_s - self._sent_at_s
        if candidates and now_s - self._repeated_at_s >= self._repeat_s and waited_s >= self._interval_s:
            return {p: c.offset for p, c in candidates.items()}
        if changed:
            records = sum(c.passed_records - self._passed_before(p, c) for p, c in changed.items())
            # After a refused commit the next try waits for the interval, also when much is due.
            enough = records >= self._records and self._waiting_since_s is None
            hurry = at_once and (self._waiting_since_s is None or waited_s >= _HURRY_S)
            if hurry or enough or waited_s >= self._interval_s:
                return {p: c.offset for p, c in changed.items()}
        return {}

    def sent(self, candidates: Mapping[int, Candidate], offsets: Mapping[int, int], now_s: float) -> None:
        """``offsets`` (from ``due``) are on their way."""
        self._in_flight = {p: candidates[p] for p in offsets}
        self._forgotten.clear()
        self._sent_at_s = now_s
        if offsets.keys() == candidates.keys():
            self._repeated_at_s = now_s
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s

    def answered(self, asked: Mapping[int, int], taken: Mapping[int, int]) -> None:
        """The broker answered a commit of ``asked``. One that was given up, or another's, changes nothing."""
        flight = self._in_flight
        if flight is None or asked != {p: c.offset for p, c in flight.items()}:
            return
        self._in_flight = None
        for partition in taken:
            if partition not in self._forgotten:
                self._committed[partition] = _Committed(*flight[partition])
        if taken == asked:
            self._waiting_since_s = None

    def give_up(self) -> None:
        """Nobody will answer what is in flight: its client is gone."""
        self._in_flight = None

    def forget(self, partition: int) -> None:
        """The partition is no longer ours, or was assigned anew."""
        self._committed.pop(partition, None)
        self._forgotten.add(partition)

    def is_committed(self, candidates: Mapping[int, Candidate]) -> bool:
        """Whether every candidate's commit was answered."""
        return not any(self._is_new(p, c) for p, c in candidates.items())

    @property
    def has_committed(self) -> bool:
        """Whether the broker took a commit of a partition that is still ours."""
        return bool(self._committed)

    def committed_offset(self, partition: int) -> int | None:
        known = self._committed.get(partition)
        return None if known is None else known.offset

    def unanswered_s(self, now_s: float) -> float:
        """For how long the broker has taken no commit although one was sent; 0 = it took the last one."""
        return 0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s

    def _is_new(self, partition: int, candidate: Candidate) -> bool:
        known = self._committed.get(partition)
        if known is None or known.epoch != candidate.epoch:
            return candidate.passed_records > 0
        return known.offset != candidate.offset

    def _passed_before(self, partition: int, candidate: Candidate) -> int:
        known = self._committed.get(partition)
        return known.passed_records if known is not None and known.epoch == candidate.epoch else 0
