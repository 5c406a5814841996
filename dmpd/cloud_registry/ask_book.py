"""When the same thing may be asked of a RAE again: a backoff for each thing, in bounded memory. Pure."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from dmpd.runtime.backoff import Backoff

_Key = TypeVar("_Key", bound=Hashable)

ENTRIES_MAX: Final = 20_000


class _Entry:
    __slots__ = ("backoff", "due_s", "seen_in")

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.due_s = 0.0
        self.seen_in = 0


class AskBook(Generic[_Key]):
    """Remembers what was asked, and how often. What is not in it may be asked at once.

    Forgotten is what a whole pass did not see (``begin_pass``, ``see``, ``end_pass``: it is healed), what was left
    alone for ``max_s`` beyond its time, and, when the book is full, what was asked longest ago: its backoff begins
    anew, so a full book means more questions, never none.

    Invariants: at most ``entries_max`` entries; two ``asked`` of one key that stays in the book lie at least
    ``first_s / 2`` apart if the caller asks only what is ``due`` (half: the jitter).
    """

    def __init__(
        self, *, first_s: float, max_s: float, random: Callable[[], float], entries_max: int = ENTRIES_MAX
    ) -> None:
        assert entries_max > 0
        self._first_s = first_s
        self._max_s = max_s
        self._random = random
        self._entries_max = entries_max
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._pass = 0

    def __len__(self) -> int:
        return len(self._entries)

    def is_due(self, key: _Key, now_s: float) -> bool:
        """Whether ``key`` may be asked now."""
        entry = self._entries.get(key)
        return entry is None or now_s >= entry.due_s

    def asked(self, key: _Key, now_s: float) -> None:
        """``key`` is asked now: the next time is later, twice as much as the last time."""
        entry = self._entries.pop(key, None)
        if entry is None or now_s > entry.due_s + self._max_s:
            entry = _Entry(Backoff(self._first_s, self._max_s, random=self._random))
        entry.due_s = now_s + entry.backoff.next_s()
        entry.seen_in = self._pass
        self._entries[key] = entry
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def begin_pass(self) -> None:
        """From here to ``end_pass`` everything that still needs an answer is seen once."""
        self._pass += 1

    def see(self, key: _Key) -> None:
        """``key`` still needs an answer."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.seen_in = self._pass

    def end_pass(self) -> None:
        """What was not seen since ``begin_pass`` is healed: if it comes again it is asked at once."""
        for key in [key for key, entry in self._entries.items() if entry.seen_in != self._pass]:
            del self._entries[key]
