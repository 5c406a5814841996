"""The end of a stream after TERM: a deadline, and what is said when it is not kept."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Final, NoReturn

from dmpd.runtime import exit_codes
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.stream.partition import Partition

_log = logging.getLogger(__name__)
_GRACE_S: Final = 1.0


class Drain:
    """Made when the stop was asked for. A timer ends the process at deadline + 1 s, whatever the loop hangs in."""

    def __init__(self, *, timeout_s: float, now_s: float) -> None:
        self._deadline_s = now_s + timeout_s
        self._timer = threading.Timer(timeout_s + _GRACE_S, self._overdue)
        self._timer.daemon = True
        self._timer.start()

    def left_s(self, at_most_s: float) -> float:
        """Seconds until the deadline, at least 0.1 and at most ``at_most_s``."""
        return min(at_most_s, max(0.1, self._deadline_s - time.monotonic()))

    def enforce(self, lifecycle: Lifecycle, partitions: Iterable[Partition]) -> None:
        """End the process, with a line of what goes back to Kafka, at the deadline or when asked a second time."""
        if lifecycle.second_stop:
            why = "stopped a second time"
        elif time.monotonic() >= self._deadline_s:
            why = "the drain did not end in time"
        else:
            return
        _log.error("%s; back to Kafka: %s", why, remainder(partitions))
        self.exit_now(exit_codes.INTERNAL)

    def end(self) -> None:
        """It is done: the timer is off."""
        self._timer.cancel()

    def exit_now(self, code: int) -> NoReturn:
        """End without teardown: the Kafka client's could block for ever. Workers die with us."""
        exit_process(code)

    def _overdue(self) -> None:
        _log.error("the drain's deadline passed and the loop hangs; what was not committed goes back to Kafka")
        self.exit_now(exit_codes.INTERNAL)


def exit_process(code: int) -> NoReturn:
    """End at once, without teardown: workers and fork server die with this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def remainder(partitions: Iterable[Partition]) -> str:
    """What was fetched and is not done: ``2: 15 records from offset 712, 5: …``."""
    parts = [
        f"{p.number}: {p.ledger.open_records} records from offset {p.ledger.next_offset or 0}"
        for p in sorted(partitions, key=lambda p: p.number)
        if not p.ledger.is_complete
    ]
    return ", ".join(parts) or "nothing"
