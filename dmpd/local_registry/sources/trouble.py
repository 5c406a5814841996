"""Says once that something is wrong, and once that it is over: who retries ten times a second must not log so often."""

import logging

_log = logging.getLogger(__name__)


class Trouble:
    """The trouble of one thing, named for the log. Cheap to call every time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: str | None = None

    def tell(self, sentence: str) -> None:
        """It is wrong in this way; logged if that is news."""
        if sentence != self._told:
            self._told = sentence
            _log.warning("%s: %s", self._what, sentence)

    def over(self) -> None:
        """It is right; logged if it was not."""
        if self._told is not None:
            self._told = None
            _log.info("%s: works again", self._what)
