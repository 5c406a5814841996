"""What grants said, what went wrong, and what users got: judged when it is over."""

from collections import defaultdict
from typing import NamedTuple


class Window(NamedTuple):
    """One grant: Unix times of its beginning and end, as committed."""

    start: float
    end: float
    revoked: bool


class Outage(NamedTuple):
    """Something was dead or frozen, and for a while the daemon could not know, or do, what it should."""

    what: str
    start: float
    healed: float


class History:
    """Per ``(user, session)``: windows, times of what was given, times of what was refused."""

    def __init__(self, *, late_s: float, early_s: float) -> None:
        """``late_s``: a grant may be felt so long after its end; ``early_s``: its beginning so late."""
        self.windows: dict[tuple[str, str], list[Window]] = defaultdict(list)
        self.given: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.refused: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.outages: list[Outage] = []
        self.standstills: list[Outage] = []
        """Of the broker: what is sent meanwhile waits in sockets, and is given by the grants of when it is read."""
        self._late_s = late_s
        self._early_s = early_s

    def problems(self) -> list[str]:
        """What must not be, in sentences."""
        found = []
        for key, times in self.given.items():
            found += [
                f"{key} was given something {self._distance(key, at):.2f} s outside of every grant"
                for at in times
                if not any(
                    window.start <= self._read_by(at) and at <= self._until(window.end, self._late_s)
                    for window in self.windows[key]
                )
            ]
        for key, times in self.refused.items():
            found += [
                f"{key} was refused at {at:.2f}, {at - window.start:.2f} s after its grant began"
                for at in times
                for window in self.windows[key]
                if self._until(window.start, self._early_s) < at < window.end and not self._is_out(at)
            ]
        return found

    def _until(self, instant: float, slack_s: float) -> float:
        """``instant`` and the slack; behind each outage that it runs into, the slack begins anew."""
        until = instant + slack_s
        for outage in sorted(self.outages, key=lambda one: one.start):
            if outage.start < until and outage.healed > instant:
                until = max(until, outage.healed + slack_s)
        return until

    def _read_by(self, at: float) -> float:
        """When the broker had read what was sent ``at``, at the latest; a backlog after a standstill takes a while."""
        return max([at, *(one.healed + self._late_s for one in self.standstills if one.start <= at <= one.healed)])

    def _is_out(self, at: float) -> bool:
        return any(outage.start <= at <= outage.healed + self._early_s for outage in self.outages)

    def _distance(self, key: tuple[str, str], at: float) -> float:
        return min((min(abs(at - window.start), abs(at - window.end)) for window in self.windows[key]), default=at)
