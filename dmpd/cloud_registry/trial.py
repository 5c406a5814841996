"""Whether the data is to blame for what keeps failing: pure. One ``Trial`` for all attempts at one piece of work.

A piece that can be taken apart is taken apart early, which costs a little time; a single record is given up late, and
only while the database takes other writes: after each of its failures a probe has been written.
"""

from typing import Final, Literal

from dmpd.cloud_registry.sqlstate import Meaning

Step = Literal["again", "wait", "halt", "reconnect", "probe", "blame"]
"""``again``: try now. ``wait``: after the backoff. ``halt``: after the long one, and say that a person is needed.
``reconnect``: after the backoff, on a new connection. ``probe``: see whether another write succeeds; then ask
``probed``. ``blame``: the data is to blame."""

_SLOW_MAX: Final = 2
"""Times that work in parts may be cancelled for its time."""
_DOUBTS_MAX: Final = 2
"""Failures of work in parts, each followed by a write that succeeded."""
_DOUBTS_ALONE_MAX: Final = 5
"""The same of a single record."""


class Trial:
    """Invariant: ``blame`` of a single record only from ``probed``."""

    def __init__(self, *, is_single: bool) -> None:
        """``is_single``: one record, so that blame is its end; else the work will be taken apart."""
        self._is_single: Final = is_single
        self._slow = 0
        self._doubts = 0
        self._plans = 0
        self._is_refused = False

    def failed(self, meaning: Meaning) -> Step:
        """What to do after one more failure."""
        self._is_refused = meaning == "refused"
        match meaning:
            case "again" | "halt":
                return meaning
            case "conflict" | "away":
                return "wait"
            case "read_only":
                return "reconnect"
            case "slow":
                self._slow += 1
                return "blame" if self._slow >= _SLOW_MAX and not self._is_single else "wait"
            case "refused":
                return "probe" if self._is_single else "blame"
            case "plan":
                self._plans += 1
                return "reconnect" if self._plans == 1 else "probe"
            case "doubtful" | "lost":
                return "probe"

    def probed(self) -> Step:
        """What to do after a failure that asked for a probe and a probe that succeeded; one that fails says nothing."""
        if self._is_refused:
            return "blame"
        self._doubts += 1
        return "blame" if self._doubts >= (_DOUBTS_ALONE_MAX if self._is_single else _DOUBTS_MAX) else "wait"
