"""The metrics of a partition: set from its picture, gone when it goes. Labels are looked up once, not each time."""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import Gauge

from dmpd.stream import metrics

_GAUGES: Final[Mapping[str, Gauge]] = {
    "ring_used_bytes": metrics.RING_USED,
    "lag": metrics.LAG,
    "lag_s": metrics.LAG_SECONDS,
    "eta_s": metrics.ETA,
    "oldest_age_s": metrics.OLDEST_AGE,
}


class PartitionMetrics:
    """One thread only."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, int], Gauge] = {}
        self._values: dict[tuple[str, int], float] = {}
        self._paused_s: dict[int, float] = {}

    def show(self, pictures: Mapping[int, Mapping[str, Any]]) -> None:
        """Set what is known of each partition; what is not known, and who is not ours, is absent."""
        known = {
            (name, number): picture[name]
            for number, picture in pictures.items()
            for name in _GAUGES
            if picture[name] is not None
        }
        for name, number in self._shown.keys() - known.keys():
            del self._shown[name, number], self._values[name, number]
            _GAUGES[name].remove(str(number))
        for key, value in known.items():
            if key not in self._shown:
                self._shown[key] = _GAUGES[key[0]].labels(str(key[1]))
            if self._values.get(key) != value:
                self._values[key] = value
                self._shown[key].set(value)
        self._count_pauses({number: picture["paused_s"] for number, picture in pictures.items()})

    def _count_pauses(self, paused_s: Mapping[int, float]) -> None:
        """They begin at 0 with each assignment."""
        for number, total_s in paused_s.items():
            before_s = self._paused_s.get(number, 0.0)
            more_s = total_s - before_s if total_s >= before_s else total_s
            if more_s > 0:
                metrics.PAUSED_SECONDS.labels(str(number)).inc(more_s)
        self._paused_s = dict(paused_s)
