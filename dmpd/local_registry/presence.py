"""Whether a device is there: unknown, online, standby, asleep, offline, flapping. Pure; ``now_s`` is monotonic.

A sign of life counts at once, its lack only after a grace without one and probes in vain. Restart means unknown until
seen again. While the LAN itself is down nothing is judged. A device that changes its mind too often is published as
flapping, once.
"""

import math
from collections.abc import Callable
from typing import Final, Literal

from dmpd.local_registry.settings import PresenceSettings
from dmpd.local_registry.source import Evidence
from dmpd.model.record import DeviceState

SUSPECT_PROBES_S: Final = (5.0, 10.0, 20.0)
CONFIRM_S: Final = 15.0
"""A device that did not answer is asked twice more at least, and the kernel takes 3 s each to say that it did not."""
FLAP_PENALTY: Final = 1000.0
FLAP_HALF_LIFE_S: Final = 300.0
FLAP_SUPPRESS: Final = 3000.0
FLAP_REUSE: Final = 1000.0

Power = Literal["on", "standby", "asleep"]
_UP: Final[dict[Power, DeviceState]] = {"on": "online", "standby": "standby", "asleep": "asleep"}


class Presence:
    """The judgement on one device. ``state`` is what to publish; the caller compares it before and after each call."""

    __slots__ = (
        "_down_since_s",
        "_judged",
        "_penalty",
        "_penalty_at_s",
        "_probe_at_s",
        "_probes",
        "_random",
        "_rules",
        "_seen_s",
        "_started_s",
        "_suppressed",
        "offline_since_s",
        "power",
        "state",
    )

    def __init__(
        self, rules: PresenceSettings, *, now_s: float, random: Callable[[], float], state: DeviceState = "unknown"
    ) -> None:
        """Begin unknown. ``state`` is what was last published; it stands for the restart grace."""
        self._rules = rules
        self._random = random
        self._started_s = now_s
        self._seen_s = now_s
        self._judged: DeviceState = "unknown"
        self.state: DeviceState = state
        self.power: Power = "on"
        self._down_since_s: float | None = None
        self._penalty = 0.0
        self._penalty_at_s = now_s
        self._suppressed = False
        self._probes = 0
        self._probe_at_s = now_s + random() * min(5.0, rules.probe_interval_s)
        self.offline_since_s: float | None = None

    @property
    def is_present(self) -> bool:
        """Judged to be there, and nothing says otherwise: who sleeps does not answer, and is there all the same."""
        return self._judged == "asleep" or (self._judged in ("online", "standby") and self._down_since_s is None)

    def seen_since(self, since_s: float) -> bool | None:
        """Whether there was a sign of life since then; None = neither one nor its lack is known."""
        if self._seen_s > since_s:
            return True
        lacking = self._judged == "offline" or (self._down_since_s is not None and self._down_since_s > since_s)
        return False if lacking else None

    def observe(self, evidence: Evidence, now_s: float) -> None:
        """Take in one sighting."""
        if evidence.power is not None:
            self.power = evidence.power
        if evidence.gone:
            self._lost(now_s)
        elif evidence.reach == "up":
            self._seen_s = now_s
            self._down_since_s = None
            self._probes = 0
            self._judge(_UP[self.power], now_s)
            self._probe_at_s = now_s + self._rules.probe_interval_s * (0.75 + self._random() / 4)
        elif evidence.reach == "down":
            if self.power == "asleep":
                self._judge("asleep", now_s)
            elif self._down_since_s is None and self._judged not in ("offline", "asleep"):
                self._down_since_s = now_s
                self._probes = 0
                self._probe_at_s = now_s + SUSPECT_PROBES_S[0]
        elif evidence.power is not None and self._down_since_s is None and self._judged in _UP.values():
            self._judge(_UP[self.power], now_s)

    def tick(self, now_s: float) -> None:
        """Let time pass: the grace of a suspect, of a restart, of a flapper."""
        if self._is_confirmed_down(now_s):
            self._lost(now_s)
        elif self._judged == "unknown":
            if self._down_since_s is None and now_s - self._started_s >= self._rules.silent_s:
                self._judge("offline", now_s)
            elif now_s - self._started_s >= self._rules.restart_grace_s:
                self.state = "unknown"
        if self._suppressed and self._decayed(now_s) < FLAP_REUSE:
            self._suppressed = False
            self.state = self._judged

    def probe_due(self, now_s: float) -> bool:
        """Whether to provoke a sign of life now; True moves the next one on."""
        if now_s < self._probe_at_s:
            return False
        if self._down_since_s is not None:
            self._probes += 1
            step = self._probes
            at_s = self._down_since_s + (SUSPECT_PROBES_S[step] if step < len(SUSPECT_PROBES_S) else 1e9)
            self._probe_at_s = max(now_s + 1.0, min(at_s, self._down_since_s + self._rules.grace_s + 30.0))
            return True
        interval_s = self._rules.probe_interval_s
        if self._judged in ("offline", "asleep"):
            interval_s = min(self._rules.probe_interval_max_s, interval_s * 2.0 ** min(self._probes, 20))
            self._probes += 1
        self._probe_at_s = now_s + interval_s * (0.75 + self._random() / 4)
        return True

    def thaw(self, slept_s: float) -> None:
        """The LAN was down for ``slept_s``: that time counts for nothing."""
        self._started_s += slept_s
        self._seen_s += slept_s
        if self._down_since_s is not None:
            self._down_since_s += slept_s

    def _is_confirmed_down(self, now_s: float) -> bool:
        """The grace runs from the last sign of life: the kernel may need 70 s until it says the first FAILED."""
        if self._down_since_s is None:
            return False
        grace_s = self._rules.grace_s
        return now_s - self._seen_s >= grace_s and now_s - self._down_since_s >= min(CONFIRM_S, grace_s)

    def _lost(self, now_s: float) -> None:
        self._down_since_s = None
        self._probes = 0
        self._judge("asleep" if self.power == "asleep" else "offline", now_s)

    def _judge(self, judged: DeviceState, now_s: float) -> None:
        if judged != self._judged:
            if self._judged != "unknown" and "offline" in (judged, self._judged):  # standby and back is a button
                self._penalty = self._decayed(now_s) + FLAP_PENALTY
                self._penalty_at_s = now_s
                if self._penalty > FLAP_SUPPRESS:
                    self._suppressed = True
            self._judged = judged
            self.offline_since_s = now_s if judged == "offline" else None
        self.state = "flapping" if self._suppressed else self._judged

    def _decayed(self, now_s: float) -> float:
        return self._penalty * math.exp2(-(now_s - self._penalty_at_s) / FLAP_HALF_LIFE_S)
