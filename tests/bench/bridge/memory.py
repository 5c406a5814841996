"""The bridge's memory while Kafka is away and messages keep coming."""

import time

from dmpd.runtime.kafka import KafkaUnreachableError
from tests.bench.bridge import load
from tests.bench.bridge.added import numbered
from tests.bench.bridge.servers import Platform, wait_for
from tests.bench.bridge.size import Size
from tests.bench.report import Figure, figure

_RATE_PER_S = 2_000
_RAES = 200
_BEFORE_S = 10.0
_SAMPLE_S = 1.0
_SAY_EACH = 30
_TIMEOUT_S = 1_200.0
"""Half a million messages wait for Kafka then, and a busy machine takes its time."""


def measure(platform: Platform, size: Size) -> list[Figure]:
    topics = platform.topics()
    with platform.bridge(topics) as bridge:
        wait_for(lambda: bridge.metric("dmpd_bridge_connected") == 1, "the bridge is connected", _TIMEOUT_S)
        with load.running(platform, raes=_RAES, rate_per_s=_RATE_PER_S, payload=numbered) as running:
            time.sleep(_BEFORE_S)
            before = bridge.rss_bytes()
            platform.kafka.process.stop()
            samples: list[float] = []
            until_s = time.monotonic() + size.stall_s
            while time.monotonic() < until_s:
                time.sleep(_SAMPLE_S)
                samples.append(bridge.rss_bytes() / (1 << 20))
                if len(samples) % _SAY_EACH == 0:
                    print(f"Kafka stopped for {len(samples) * _SAMPLE_S:.0f} s: {samples[-1]:.1f} MiB", flush=True)
            platform.kafka.process.start()
        wait_for(lambda: _records(platform, topics.info) >= running.sent, "everything in Kafka", _TIMEOUT_S)
        after = bridge.rss_bytes()
    highest = figure("memory", "MiB", samples, reference=[before / (1 << 20)], bar="<= 1.2x")
    highest.value, highest.ratio = max(samples), max(samples) * (1 << 20) / before
    return [highest, figure("memory/after", "MiB", [after / (1 << 20)], reference=[before / (1 << 20)])]


def _records(platform: Platform, topic: str) -> int:
    try:
        return sum(platform.kafka.end_offsets(topic))
    except KafkaUnreachableError:  # still finding its leaders
        return 0
