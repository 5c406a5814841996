"""Which record makes a worker die: pure. One ``Suspicion`` per assignment.

Records that were offered when a worker died are offered again in halves until one is left; that one is judged after
its third death alone, so a stray kill condemns nothing. What is released meanwhile is innocent.
"""

from typing import Final

DEATHS_ALONE_MAX: Final = 3


class Suspicion:
    """Invariants: ``1 <= width <= suspects`` while there is a width; a record is condemned only by deaths alone."""

    def __init__(self) -> None:
        self.width: int | None = None
        """Most records to offer at once; None = no suspicion."""
        self._suspects = 0
        self._deaths_alone = 0

    @property
    def narrowness(self) -> tuple[int, ...]:
        """Changes with each death that says something, and with each release under suspicion."""
        return (self.width or 0, self._suspects, self._deaths_alone)

    def died(self, offered: int) -> bool:
        """A worker died while it had the ``offered`` (at least one) oldest open records; True = condemn the oldest."""
        assert offered >= 1
        self._suspects = offered
        self.width = max(1, offered // 2)
        if offered > 1:
            self._deaths_alone = 0
            return False
        self._deaths_alone += 1
        return self._deaths_alone >= DEATHS_ALONE_MAX

    def released(self, records: int) -> None:
        """The ``records`` oldest open records are handled, or given up."""
        if self.width is None or records == 0:
            return
        self._deaths_alone = 0
        self._suspects -= records
        self.width = min(self.width, self._suspects) if self._suspects > 0 else None
