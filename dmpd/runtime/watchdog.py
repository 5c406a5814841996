"""Ends a process whose main loop stands still: stacks to stderr, exit 70, and supervisord starts it anew."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from typing import Final

from dmpd.runtime import exit_codes

_CHECKS: Final = 10


class Watchdog:
    """The loop calls ``beat``; a thread looks ten times in ``stall_s``. Credits at most one interval per look.

    So a suspended machine or a process under SIGSTOP is no stall: while nobody runs, no time is counted.
    """

    def __init__(self, stall_s: float = 30.0) -> None:
        self._interval_s = stall_s / _CHECKS
        self._beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat(self) -> None:
        """The loop is alive. Costs nothing."""
        self._beats += 1

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        seen, silent = -1, 0
        while not self._ended.wait(self._interval_s):
            silent = silent + 1 if self._beats == seen else 0
            seen = self._beats
            if silent >= _CHECKS:
                self._end()

    def _end(self) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):  # supervisord, which read it, was killed
            sys.stderr.write(f"{stamp} error the main loop has stood still for {self._interval_s * _CHECKS:g} s\n")
            sys.stderr.flush()
            faulthandler.dump_traceback(all_threads=True)
        os._exit(exit_codes.INTERNAL)
