"""``isolation``: the rate of 11 partitions while the handler of a 12th sleeps, beside a topic of those 11 alone."""

from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

_OTHERS = 11
_SLEEPER = 11
"""The last partition's number."""


def measure(broker: Broker, size: Size) -> list[Figure]:
    each = size.path_records // (_OTHERS + 1) // 10 * 10
    whole = broker.filled(_OTHERS + 1, each * (_OTHERS + 1))
    alone = broker.filled(_OTHERS, each * _OTHERS)
    beside: list[float] = []
    by_themselves: list[float] = []
    for _ in range(size.runs):
        by_themselves.append(_rate(broker, alone, each, stalled=[]))
        beside.append(_rate(broker, whole, each, stalled=[_SLEEPER]))
    return [figure("isolation", "records/s", beside, reference=by_themselves, bar=">= 0.9x")]


def _rate(broker: Broker, topic: str, each: int, stalled: list[int]) -> float:
    with StreamProcess(broker, topic, handler="stall", options={"stalled": stalled}) as process:
        counters = process.counters
        process.wait_for(lambda: min(counters.counts()[:_OTHERS]) >= each, every_s=0.002)
        return each * _OTHERS / counters.took_s
