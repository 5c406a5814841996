"""Says once that something is wrong, and once that it is over: who retries ten times a second must not log so often.

What is wrong now is kept beside, for whoever asks this process.
"""

import logging

_log = logging.getLogger(__name__)
_now: dict[str, str] = {}


def current() -> list[str]:
    """What is wrong now, a sentence each. May be asked from any thread."""
    return [f"{what}: {sentence}" for what, sentence in sorted(_now.items())]


class Trouble:
    """The trouble of one thing, named for the log. Cheap to call every time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: str | None = None

    def tell(self, sentence: str) -> None:
        """It is wrong in this way; logged if that is news."""
        if sentence != self._told:
            self._told = _now[self._what] = sentence
            _log.warning("%s: %s", self._what, sentence)

    def over(self) -> None:
        """It is right; logged if it was not."""
        if self._told is not None:
            self._told = None
            _now.pop(self._what, None)
            _log.info("%s: works again", self._what)
