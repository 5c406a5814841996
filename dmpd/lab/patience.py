"""Waiting for conditions in a demo: each wait has a deadline, its time and its failure go to the report."""

import time
from collections.abc import Callable
from typing import Final

from dmpd.lab.platform import LabInterruptedError
from dmpd.lab.report import Report

_POLL_S: Final = 0.1


class Patience:
    """What every act of a demo waits with. ``say`` gets a line per wait."""

    def __init__(self, report: Report, *, say: Callable[[str], None], stop_requested: Callable[[], bool]) -> None:
        self.report = report
        self.say = say
        self._stop_requested = stop_requested

    def until(
        self,
        what: str,
        condition: Callable[[], bool],
        timeout_s: float,
        *,
        since_s: float | None = None,
        poll_s: float = _POLL_S,
    ) -> float | None:
        """Wait for ``condition``; the time since ``since_s`` (default: now) goes to the report, as does a failure.

        Returns:
            That time, None if it was not met in time.

        Raises:
            LabInterruptedError: Somebody asked the lab to end.
        """
        begun_s = time.monotonic() if since_s is None else since_s
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                self.report.failures.append(f"{what}: not within {timeout_s:g} s")
                self.say(f"{what}: NOT within {timeout_s:g} s")
                return None
            self.pause(poll_s)
        took_s = time.monotonic() - begun_s
        self.report.timings.append((what, took_s))
        self.say(f"{what}: {took_s:.1f} s")
        return took_s

    def judge(self, what: str, measured: float | None, limit: float, unit: str) -> None:
        """A measured value above its limit is a failure. None = not measured, which is a failure of its own already."""
        if measured is not None and measured > limit:
            self.report.failures.append(f"{what}: {measured:.1f} {unit}, more than {limit:g} {unit}")

    def pause(self, poll_s: float = _POLL_S) -> None:
        if self._stop_requested():
            raise LabInterruptedError
        time.sleep(poll_s)
