"""What the way through bridge and Kafka adds, at the usual rate, to the way through the broker alone."""

import time

from tests.bench.bridge import load
from tests.bench.bridge.arrivals import Observer, Seen
from tests.bench.bridge.publishers import row
from tests.bench.bridge.servers import Bridge, Platform, wait_for
from tests.bench.bridge.size import Size
from tests.bench.report import Figure, percentile

_RATE_PER_S = 900
_RAES = 300
_SETTLE_S = 10.0
"""A young JVM compiles and collects; it is not what is measured."""
_LAST_ONES_S = 2.0
_TIMEOUT_S = 60.0


def measure(platform: Platform, size: Size) -> list[Figure]:
    topics = platform.topics()
    broker, kafka = Observer.of_broker(platform), Observer.of_kafka(platform, topics.info)
    with platform.bridge(topics) as bridge, broker, kafka:
        _connected(bridge)
        with load.running(platform, raes=_RAES, rate_per_s=_RATE_PER_S, payload=numbered) as running:
            time.sleep(_SETTLE_S)
            first = running.sent
            time.sleep(size.steady_s)
        sent = running.sent
        wait_for(lambda: sum(platform.kafka.end_offsets(topics.info)) >= sent, "all in Kafka", _TIMEOUT_S)
        time.sleep(_LAST_ONES_S)
    return _figures(broker.seen, kafka.seen, range(first + 1, sent + 1))


def _figures(broker: Seen, kafka: Seen, numbers: range) -> list[Figure]:
    began_s = dict(zip(broker.number, broker.came_s, strict=True))
    came_s = dict(zip(kafka.number, kafka.came_s, strict=True))
    produced_s = dict(zip(kafka.number, kafka.produced_s, strict=True))
    added_ms = [1000 * (came_s[n] - began_s[n]) for n in numbers]
    kafkas_ms = [1000 * (came_s[n] - produced_s[n]) for n in numbers]
    return [
        percentile("added/p50", "ms", added_ms, 0.50, bar="<= 6"),
        percentile("added/p99", "ms", added_ms, 0.99, bar="<= 40"),
        percentile("added/kafka_p50", "ms", kafkas_ms, 0.50),
        percentile("added/kafka_p99", "ms", kafkas_ms, 0.99),
    ]


def numbered(rae: str, number: int) -> bytes:
    return row(rae, number + 1)


def _connected(bridge: Bridge) -> None:
    wait_for(lambda: bridge.metric("dmpd_bridge_connected") == 1, "the bridge is connected", _TIMEOUT_S)
