"""``latency``: from produce to handled at 900 records per second over 12 partitions, and what that costs."""

import time
from array import array
from statistics import median

from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker, paced, raise_on_failure, record_value
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

PARTITIONS = 12
PER_S = 900
_WARM_S = 3.0


def measure(broker: Broker, size: Size) -> list[Figure]:
    runs = [_run(broker, size.steady_s) for _ in range(min(3, size.runs))]
    return [
        figure("latency/p50", "ms", [one[0] for one in runs], bar="<= 3"),
        figure("latency/p99", "ms", [one[1] for one in runs], bar="<= 15"),
        figure("latency/cpu", "% of a core", [one[2] for one in runs], bar="<= 25"),
        figure("latency/cpu_workers", "% of a core", [one[3] for one in runs]),
    ]


def _run(broker: Broker, duration_s: float) -> tuple[float, float, float, float]:
    """p50 and p99 in ms, CPU of all and of fork server and workers in % of a core."""
    topic = broker.topic(PARTITIONS)
    padding = record_value(1, 300)[8:]
    producer = broker.producer({"linger.ms": 0})

    def produce(n: int) -> None:
        stamp = time.monotonic_ns().to_bytes(8, "little")
        producer.produce(topic, stamp + padding, b"key-%d" % n, n % PARTITIONS, on_delivery=raise_on_failure)
        producer.poll(0)

    with StreamProcess(broker, topic, handler="stamp") as process:
        process.wait_ready(PARTITIONS)
        paced(PER_S, _WARM_S, produce)
        started_ns = time.monotonic_ns()
        before = process.cpu_s()
        paced(PER_S, duration_s, produce)
        took_s = (time.monotonic_ns() - started_ns) / 1e9
        parent_s, workers_s = (after - b for after, b in zip(process.cpu_s(), before, strict=True))
        producer.flush(30)
        process.wait_for(lambda: process.counters.records >= int(PER_S * _WARM_S) + int(PER_S * duration_s))
        process.drain()
        delays_ms = []
        for partition in range(PARTITIONS):
            pairs = array("Q")
            pairs.frombytes(process.counters_path.with_name(f"counters.{partition}").read_bytes())
            delays_ms += [pairs[n + 1] / 1e6 for n in range(0, len(pairs), 2) if pairs[n] >= started_ns]
    if len(delays_ms) != int(PER_S * duration_s):
        raise RuntimeError(f"{len(delays_ms)} records handled, {int(PER_S * duration_s)} expected")
    delays_ms.sort()
    p99 = delays_ms[int(len(delays_ms) * 0.99)]
    return median(delays_ms), p99, (parent_s + workers_s) / took_s * 100, workers_s / took_s * 100
