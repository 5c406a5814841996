"""``path``, ``path_defaults``: Kafka → parent → rings → workers with an empty handler, beside a bare loop."""

from msgspec import Struct

from tests.bench.report import Figure, figure
from tests.bench.stream import bare
from tests.bench.stream.broker import Broker
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

PARTITIONS = 12


class StreamRun(Struct):
    """First record to last."""

    rate: float
    parent_us: float
    """CPU per record."""
    workers_us: float


def stream(broker: Broker, topic: str, records: int, partitions: int = PARTITIONS) -> StreamRun:
    """Process the whole topic. CPU is counted from the first record seen on, and over the records after it."""
    with StreamProcess(broker, topic) as process:
        counters = process.counters
        process.wait_for(lambda: counters.records > 0, every_s=0.001)
        before = counters.records
        parent_s, workers_s = process.cpu_s()
        process.wait_for(lambda: counters.records >= records, every_s=0.002)
        parent_end_s, workers_end_s = process.cpu_s()
        found = StreamRun(
            rate=records / counters.took_s,
            parent_us=(parent_end_s - parent_s) / (records - before) * 1e6,
            workers_us=(workers_end_s - workers_s) / (records - before) * 1e6,
        )
        process.drain()
        if counters.records != records:
            raise RuntimeError(f"{counters.records} records handled, {records} expected")
    return found


def measure(broker: Broker, size: Size) -> list[Figure]:
    records = size.path_records
    topic = broker.filled(PARTITIONS, records)
    ours: list[StreamRun] = []
    same: list[bare.BareRun] = []
    default: list[bare.BareRun] = []
    bare.run(broker.bootstrap, topic, PARTITIONS, records, defaults=False)  # warms the broker and the page cache
    for _ in range(size.runs):
        same.append(bare.run(broker.bootstrap, topic, PARTITIONS, records, defaults=False))
        ours.append(stream(broker, topic, records))
        default.append(bare.run(broker.bootstrap, topic, PARTITIONS, records, defaults=True))
    rates = [one.rate for one in ours]
    us = "us CPU per record"
    return [
        figure("path", "records/s", rates, reference=[one.rate for one in same], bar=">= 0.7x"),
        figure("path_defaults", "records/s", rates, reference=[one.rate for one in default], bar=">= 3x"),
        figure("path/cpu_parent", us, [one.parent_us for one in ours], reference=[one.cpu_us for one in same]),
        figure("path/cpu_workers", us, [one.workers_us for one in ours]),
    ]
