"""``latency``: from produce to handled at 900 records per second over 12 partitions, and what that costs.

Beside it, from produce to acknowledged in the same run: what the broker and the machine take of it.
"""

import time
from array import array
from pathlib import Path
from statistics import median

from confluent_kafka import KafkaError, Message
from msgspec import Struct

from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker, paced, record_value
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

PARTITIONS = 12
PER_S = 900
_WARM_S = 20.0
"""Of each run: so long the JVM's compiler still works at what this load needs, on the same two cores."""


def measure(broker: Broker, size: Size) -> list[Figure]:
    runs = [_run(broker, size.steady_s) for _ in range(size.runs)]
    return [
        figure(
            "latency/p50", "ms", [one.p50_ms for one in runs], reference=[one.ack_p50_ms for one in runs], bar="<= 3"
        ),
        figure(
            "latency/p99", "ms", [one.p99_ms for one in runs], reference=[one.ack_p99_ms for one in runs], bar="<= 15"
        ),
        figure("latency/cpu", "% of a core", [one.parent_percent + one.workers_percent for one in runs], bar="<= 25"),
        figure("latency/cpu_workers", "% of a core", [one.workers_percent for one in runs]),
    ]


class _Run(Struct):
    p50_ms: float
    p99_ms: float
    ack_p50_ms: float
    ack_p99_ms: float
    parent_percent: float
    workers_percent: float
    """With the fork server."""


def _run(broker: Broker, duration_s: float) -> _Run:
    topic = broker.topic(PARTITIONS)
    padding = record_value(1, 300)[8:]
    producer = broker.producer({"linger.ms": 1, "enable.idempotence": True})  # as the bridge's, but for 1 ms less
    acks_ms: list[float] = []

    def produce(n: int) -> None:
        made_ns = time.monotonic_ns()

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                raise RuntimeError(f"Kafka did not take a record: {error}")
            acks_ms.append((time.monotonic_ns() - made_ns) / 1e6)

        value = made_ns.to_bytes(8, "little") + padding
        producer.produce(topic, value, b"key-%d" % n, n % PARTITIONS, on_delivery=on_delivery)
        producer.poll(0)

    with StreamProcess(broker, topic, handler="stamp") as process:
        process.wait_ready(PARTITIONS)
        paced(PER_S, _WARM_S, produce)
        started_ns, warm_acks = time.monotonic_ns(), len(acks_ms)
        before = process.cpu_s()
        paced(PER_S, duration_s, produce)
        took_s = (time.monotonic_ns() - started_ns) / 1e9
        parent_s, workers_s = (now_s - before_s for now_s, before_s in zip(process.cpu_s(), before, strict=True))
        producer.flush(60)
        process.wait_for(lambda: process.counters.records >= int(PER_S * _WARM_S) + int(PER_S * duration_s))
        process.drain()
        delays_ms = _delays_ms(process.counters_path, started_ns)
    return _Run(
        *_percentiles(delays_ms), *_percentiles(acks_ms[warm_acks:]), parent_s / took_s * 100, workers_s / took_s * 100
    )


def _delays_ms(counters_path: Path, since_ns: int) -> list[float]:
    """Of the records produced from ``since_ns`` on; see ``handlers.Stamp``."""
    found = []
    for partition in range(PARTITIONS):
        pairs = array("Q", counters_path.with_name(f"counters.{partition}").read_bytes())
        found += [pairs[n + 1] / 1e6 for n in range(0, len(pairs), 2) if pairs[n] >= since_ns]
    return found


def _percentiles(values: list[float]) -> tuple[float, float]:
    return median(values), sorted(values)[int(len(values) * 0.99)]
