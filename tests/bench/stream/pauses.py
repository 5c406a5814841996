"""``pauses``: how often a partition is paused while half of what the sink takes is produced."""

from tests.bench.report import Figure, figure, worst
from tests.bench.stream.broker import Broker, paced, record_value
from tests.bench.stream.path import PARTITIONS
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

_SINK_PER_S = 4000
"""Per partition: so little that one producing process beside broker and stream can feed half of it."""
_BURST = 100
"""Records produced at once, each burst to the next partition."""
_CALIBRATION_S = 5.0


def measure(broker: Broker, size: Size) -> list[Figure]:
    full_rate = _full_rate(broker, size)
    runs = [_pauses(broker, full_rate / 2, size.steady_s) for _ in range(size.state_runs)]
    pauses, rates = zip(*runs, strict=True)
    return [
        worst("pauses", "pauses", pauses, bar="0"),
        figure("pauses/load", "records/s", rates, reference=[full_rate]),
    ]


def _full_rate(broker: Broker, size: Size) -> float:
    """What comes through from a backlog."""
    topic = broker.filled(PARTITIONS, size.backlog_records)
    with StreamProcess(broker, topic, handler="throttle", options={"per_s": _SINK_PER_S}) as process:
        process.wait_for(lambda: all(process.counters.counts()[:PARTITIONS]))
        process.watch(_CALIBRATION_S)
        return process.counters.records / process.counters.took_s


def _pauses(broker: Broker, per_s: float, duration_s: float) -> tuple[int, float]:
    """How many, and the rate at which was handled."""
    topic = broker.topic(PARTITIONS)
    producer = broker.producer({"linger.ms": 2, "compression.type": "lz4", "enable.idempotence": True})
    value = record_value(1, 300)

    def produce(nth: int) -> None:
        for n in range(_BURST):
            producer.produce(topic, value, b"key-%d" % n, nth % PARTITIONS)
        producer.poll(0)

    with StreamProcess(broker, topic, handler="throttle", options={"per_s": _SINK_PER_S}) as process:
        process.wait_ready(PARTITIONS)
        paced(per_s / _BURST, duration_s, produce)
        producer.flush(60)
        produced = int(per_s / _BURST * duration_s) * _BURST
        process.wait_for(lambda: process.counters.records >= produced)
        rate = produced / process.counters.took_s
        process.watch(1.0)  # until the picture shows the last turn
        return process.status["pauses"], rate
