"""Times as a few numbers and a small histogram. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

BOUNDS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's bins; one more bin holds what is above."""
_BARS: Final = "▁▂▃▄▅▆▇█"


class Summary(Struct, frozen=True, kw_only=True):
    """Seconds; ``None`` where there was nothing to measure."""

    n: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    bins: Sequence[int] = ()


def summarize(values_s: Iterable[float]) -> Summary:
    ordered = sorted(values_s)
    if not ordered:
        return Summary()
    bins = [0] * (len(BOUNDS_S) + 1)
    for value_s in ordered:
        bins[bisect_left(BOUNDS_S, value_s)] += 1
    return Summary(
        n=len(ordered),
        p50=_at(ordered, 0.5),
        p95=_at(ordered, 0.95),
        p99=_at(ordered, 0.99),
        max=round(ordered[-1], 6),
        bins=bins,
    )


def bars(summary: Summary) -> str:
    """The histogram in one line, from the first to the last bin that holds something; a bin with few still shows."""
    filled = [index for index, count in enumerate(summary.bins) if count]
    if not filled:
        return ""
    shown = summary.bins[filled[0] : filled[-1] + 1]
    most = max(shown)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] if count else " " for count in shown)


def _at(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 6)
