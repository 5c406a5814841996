"""How long to wait before the next connection: exponential, with full jitter over the upper half. Pure."""

from collections.abc import Callable
from typing import Final

from dmpd.bridge.settings import BridgeSettings

STABLE_S: Final = 60.0


class Retries:
    """Two ladders: trouble of any kind, and a takeover, over which two bridges must not fight."""

    def __init__(self, settings: BridgeSettings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random
        self._failures = 0
        self._takeovers = 0

    def connection_lasted(self, duration_s: float) -> None:
        """A connection that lasted ends both ladders."""
        if duration_s > STABLE_S:
            self._failures = self._takeovers = 0

    def delay_s(self, *, taken_over: bool) -> float:
        settings = self._settings
        if taken_over:
            step, first_s, max_s = self._takeovers, settings.takeover_retry_first_s, settings.takeover_retry_max_s
            self._takeovers += 1
        else:
            step, first_s, max_s = self._failures, settings.retry_first_s, settings.retry_max_s
            self._failures += 1
        ceiling_s = min(max_s, first_s * 2.0 ** min(step, 30))
        return ceiling_s * (0.5 + self._random() / 2)
