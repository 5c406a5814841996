"""Metrics: each declared exactly once, at the top of a room's ``metrics.py``, with kind, unit and meaning.

Names are ``dmpd_<room>_<what>_<unit>``, counters end in ``_total``, units are base units (seconds, bytes).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

Kind = Literal["counter", "gauge", "histogram"]

LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Declaration(NamedTuple):
    """What the reference page says of a metric."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...]


_registry: Final = CollectorRegistry()
_declared: Final[dict[str, Declaration]] = {}


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    """Something that only grows; ``name`` ends in ``_total``."""
    assert name.endswith("_total")
    _declare(name, "counter", _unit(name.removesuffix("_total")), meaning, labels)
    return Counter(name, meaning, labels, registry=_registry)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    """Something that is so much now."""
    _declare(name, "gauge", _unit(name), meaning, labels)
    return Gauge(name, meaning, labels, registry=_registry)


def histogram(
    name: str, meaning: str, *, unit: str = "seconds", buckets: Sequence[float] = LATENCY_BUCKETS_S
) -> Histogram:
    """How often a measured value fell below each bound."""
    assert name.endswith(f"_{unit}")
    _declare(name, "histogram", unit, meaning, ())
    return Histogram(name, meaning, registry=_registry, buckets=buckets)


class BatchHistogram(Collector):
    """A histogram that one thread fills by the thousand a second: no lock, no object per observation.

    A scrape by another thread may miss the newest observations; the next one has them.
    """

    def __init__(self, name: str, meaning: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._meaning = meaning
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the registry asks for."""
        family = HistogramMetricFamily(self._name, self._meaning)
        totals = list(accumulate(self._counts))
        bounds = [str(float(bound)) for bound in self._bounds] + ["+Inf"]
        family.add_metric([], list(zip(bounds, totals, strict=True)), self._sum)
        yield family


def batch_histogram(name: str, meaning: str, *, buckets: Sequence[float] = LATENCY_BUCKETS_S) -> BatchHistogram:
    """``histogram`` of seconds for what happens very often on one thread."""
    assert name.endswith("_seconds")
    _declare(name, "histogram", "seconds", meaning, ())
    made = BatchHistogram(name, meaning, buckets)
    _registry.register(made)
    return made


def declared() -> list[Declaration]:
    """All metrics of the modules imported so far, by name."""
    return sorted(_declared.values())


def render() -> bytes:
    """The text form that Prometheus reads."""
    return generate_latest(_registry)


def _declare(name: str, kind: Kind, unit: str, meaning: str, labels: Sequence[str]) -> None:
    assert name not in _declared, f"{name} is declared twice"
    assert name.startswith("dmpd_")
    _declared[name] = Declaration(name, kind, unit, meaning, tuple(labels))


def _unit(name: str) -> str:
    """The last word: ``seconds``, ``bytes``, or what is counted."""
    return name.rsplit("_", 1)[-1]


DAEMON_STATE: Final = gauge("dmpd_daemon_state", "1 for the state that the daemon is in, 0 for the others.", ["state"])
DAEMON_STARTED: Final = gauge("dmpd_daemon_started_seconds", "When the daemon began, or began anew, Unix time.")
MQTT_CERTIFICATE_ENDS: Final = gauge(
    "dmpd_mqtt_certificate_ends_seconds",
    "When the certificate of the newest connection to the broker ends, Unix time; 0 = no connection was tried.",
)
RELOADS_REFUSED: Final = counter(
    "dmpd_daemon_reloads_refused_total", "Reloads refused because the changed configuration cannot be used."
)
