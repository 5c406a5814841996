"""The end of a stream after TERM: a deadline, and what is said when it is not kept."""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from dmpd.runtime import exit_codes
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.stream.partition import Partition

_log = logging.getLogger(__name__)
_GRACE_S: Final = 1.0
"""The loop ends the process itself, with a better line; after this it is taken for hanging."""
_SECOND_STOP_GRACE_S: Final = 0.3
_LAST_WORDS_S: Final = 0.5
"""For the line in the log: who should read it may stand still, with the pipe full."""
_LOOK_EVERY_S: Final = 0.5
NOTHING: Final = "nothing"
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class StopWatch:
    """A thread that ends the process at deadline + 1 s or after a second stop, whatever call the loop hangs in.

    It reads the lifecycle's wake-up descriptor: the kernel's signal shows there at once, while Python's own handlers
    wait until the main thread returns from the client's C code (asking for committed offsets takes up to 30 s).
    """

    def __init__(self, lifecycle: Lifecycle, *, timeout_s: float) -> None:
        self._lifecycle: Final = lifecycle
        self._timeout_s: Final = timeout_s
        self.remainder: Callable[[], str] = lambda: NOTHING
        """Called in the thread; names what goes back to Kafka. Set by who fetches something."""
        self._signals = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stop-watch", daemon=True)
        self.stopped_at_s: float | None = None
        """When the first stop came, monotonic."""

    def start(self) -> None:
        self._signals = self._lifecycle.stops
        if self._lifecycle.wakeup_fd >= 0:
            self._lifecycle.clear_wakeup()
        self._thread.start()

    def end(self) -> None:
        """Everything is done: nothing is ended any more."""
        self._ended.set()

    def _watch(self) -> None:
        poller = select.poll()
        if self._lifecycle.wakeup_fd >= 0:
            poller.register(self._lifecycle.wakeup_fd, select.POLLIN)
        second_at_s: float | None = None
        while not self._ended.is_set():
            if poller.poll((_LOOK_EVERY_S if self.stopped_at_s is None else 0.05) * 1000):
                self._take_signals()
            now_s = time.monotonic()
            stops = max(self._signals, self._lifecycle.stops)
            if (stops > 0 or self._lifecycle.stop_requested) and self.stopped_at_s is None:
                self.stopped_at_s = now_s
            if stops > 1 and second_at_s is None:
                second_at_s = now_s
            if second_at_s is not None and now_s >= second_at_s + _SECOND_STOP_GRACE_S:
                self._end_process("stopped a second time while the loop hangs")
            if self.stopped_at_s is not None and now_s >= self.stopped_at_s + self._timeout_s + _GRACE_S:
                self._end_process("the drain's deadline passed while the loop hangs")

    def _take_signals(self) -> None:
        try:
            self._signals += sum(number in _STOPS for number in os.read(self._lifecycle.wakeup_fd, 512))
        except BlockingIOError:  # another reader was faster; the lifecycle counts too
            return

    def _end_process(self, why: str) -> None:
        if not self._ended.is_set():
            last = threading.Timer(_LAST_WORDS_S, os._exit, (exit_codes.INTERNAL,))
            last.daemon = True
            last.start()
            _log.error("%s; back to Kafka: %s", why, self.remainder())
            exit_now(exit_codes.INTERNAL)


class Drain:
    """Made by the loop when it sees that a stop was asked for."""

    def __init__(self, *, timeout_s: float, since_s: float) -> None:
        """``since_s``: when it was asked for, monotonic."""
        self._deadline_s = since_s + timeout_s
        self.exit_code = exit_codes.OK

    def note_lost(self, what: str) -> None:
        """Partitions went before they were drained; ``what`` of them goes back to Kafka (``remainder``)."""
        if what != NOTHING:
            _log.error("lost while draining; back to Kafka: %s", what)
            self.exit_code = exit_codes.INTERNAL

    def note_handed_over(self, what: str) -> None:
        """A rebalance took partitions in order; ``what`` of them the next owner processes. Nothing is late or lost."""
        if what != NOTHING:
            _log.warning("revoked while draining; the next owner goes on with: %s", what)

    def left_s(self, at_most_s: float) -> float:
        """Seconds until the deadline, at least 0.1 and at most ``at_most_s``."""
        return min(at_most_s, max(0.1, self._deadline_s - time.monotonic()))

    def enforce(self, lifecycle: Lifecycle, remainder: Callable[[], str]) -> None:
        """End the process, with a line of what goes back to Kafka, at the deadline or when asked a second time."""
        if lifecycle.second_stop:
            why = "stopped a second time"
        elif time.monotonic() >= self._deadline_s:
            why = "the drain did not end in time"
        else:
            return
        _log.error("%s; back to Kafka: %s", why, remainder())
        exit_now(exit_codes.INTERNAL)


def exit_now(code: int) -> NoReturn:
    """End without teardown: the Kafka client's could block for ever. Workers die with us."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # supervisord, which read it, was killed
            stream.flush()
    os._exit(code)


def remainder(partitions: Iterable[Partition], is_committed: Callable[[Partition], bool] = lambda _: True) -> str:
    """What was fetched and is not done, or done and not known to be committed: ``2: 15 records from offset 712, …``."""
    parts = []
    for partition in sorted(partitions, key=lambda p: p.number):
        ledger = partition.ledger
        if not ledger.is_complete:
            parts.append(f"{partition.number}: {ledger.open_records} records from offset {ledger.next_offset or 0}")
        elif not is_committed(partition):
            parts.append(f"{partition.number}: all handled, but the commit of {ledger.next_offset} is not answered")
    return ", ".join(parts) or NOTHING
