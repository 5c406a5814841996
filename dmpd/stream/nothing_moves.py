"""When the whole stream stands still although everything is reachable: pure. The last cure is another process.

Only after the milder ones: it takes longer than a stuck worker, a silent one and two cures of a stopped fetch together,
and each of those shows as movement when it helps.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

_CREDIT_MAX_S: Final = 1.0


class Standing(NamedTuple):
    """Where one owned partition is."""

    next_offset: int
    """Next to commit; -1 = not known."""
    next_to_place: int
    narrowness: tuple[int, ...]
    """Changes when records are taken apart to find the one that ends its worker: that is work."""
    has_work: bool
    """Something lies in its ring or is to be fetched, and it may be (nobody wants it to stand still)."""


class NothingMoves:
    """Asked at every look; stands for one process."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s: Final = timeout_s
        self._quiet_s = 0.0
        self._seen_at_s: float | None = None
        self._furthest: dict[int, Standing] = {}

    def look(self, now_s: float, partitions: Mapping[int, Standing], *, is_excused: bool) -> bool:
        """Whether to give up.

        Args:
            now_s: Monotonic; a look credits at most a second.
            partitions: All that are owned. Placing again what was placed before, after a reset, is no movement.
            is_excused: Somebody waits for its sink, for the broker, or the broker does not answer: time begins anew.
        """
        passed_s = 0.0 if self._seen_at_s is None else min(_CREDIT_MAX_S, now_s - self._seen_at_s)
        self._seen_at_s = now_s
        has_moved = self._note(partitions)
        if has_moved or is_excused or not any(one.has_work for one in partitions.values()):
            self._quiet_s = 0.0
        else:
            self._quiet_s += passed_s
        return self._quiet_s > self._timeout_s

    def _note(self, partitions: Mapping[int, Standing]) -> bool:
        before, self._furthest = self._furthest, {}
        has_moved = before.keys() != partitions.keys()
        for number, one in partitions.items():
            old = before.get(number, one)
            has_moved = has_moved or _is_further(one, old)
            self._furthest[number] = one._replace(
                next_offset=max(one.next_offset, old.next_offset),
                next_to_place=max(one.next_to_place, old.next_to_place),
            )
        return has_moved


def _is_further(one: Standing, old: Standing) -> bool:
    return (
        one.next_offset > old.next_offset or one.next_to_place > old.next_to_place or one.narrowness != old.narrowness
    )
