"""Watches the end of the list of revoked certificates that the broker reads: past it the broker refuses everybody."""

import logging
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dmpd.access import metrics
from dmpd.runtime import certificate

_LOOK_EVERY_S: Final = 60.0
_WARN_EVERY_S: Final = 86_400.0
WARN_BEFORE_S: Final = 30 * 86_400.0
"""So long before the end it is said, once a day; the alert rule says it as early."""

_log = logging.getLogger(__name__)


class ListWatch:
    """One file, maybe a foreign PKI's. ``look`` as often as one likes: it reads the file once a minute."""

    def __init__(self, crl_file: str | None) -> None:
        self._path = None if crl_file is None else Path(crl_file)
        self._looked_s = -math.inf
        self._warned_s = -math.inf
        self._ends_at: datetime | None = None
        metrics.crl_expires.set(math.nan)

    def look(self, now_s: float, now: datetime | None = None) -> datetime | None:
        """When the list ends; ``None``: it is not watched, or cannot be read. ``now_s``: a clock that never steps."""
        if self._path is None or now_s - self._looked_s < _LOOK_EVERY_S:
            return self._ends_at
        self._looked_s = now_s
        self._ends_at = certificate.list_ends_at(self._path)
        left_s = 0.0 if self._ends_at is None else (self._ends_at - (now or datetime.now(UTC))).total_seconds()
        metrics.crl_expires.set(max(0.0, left_s))
        if left_s < WARN_BEFORE_S and now_s - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = now_s
            when = "cannot be read" if self._ends_at is None else f"ends at {self._ends_at:%Y-%m-%dT%H:%M:%SZ}"
            _log.warning("the list of revoked certificates %s %s: then the broker refuses everybody", self._path, when)
        return self._ends_at
