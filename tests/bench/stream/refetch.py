"""``refetch``: bytes that the client received, over bytes handled, with a sink at 30 % of the stream's speed."""

import time

from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker
from tests.bench.stream.path import PARTITIONS
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

_SHARE = 0.3
_CALIBRATION_RECORDS = 500_000


def measure(broker: Broker, size: Size) -> list[Figure]:
    topic = broker.filled(PARTITIONS, size.backlog_records)
    full_rate = _full_rate(broker, topic)
    ratio, sink_rate = _ratio(broker, topic, full_rate * _SHARE, size)
    return [
        figure("refetch", "bytes received / handled", [ratio], bar="<= 1.4"),
        figure("refetch/sink", "records/s", [sink_rate], reference=[full_rate]),
    ]


def _full_rate(broker: Broker, topic: str) -> float:
    with StreamProcess(broker, topic) as process:
        process.wait_for(lambda: process.counters.records >= _CALIBRATION_RECORDS, every_s=0.002)
        return process.counters.records / process.counters.took_s


def _ratio(broker: Broker, topic: str, sink_rate: float, size: Size) -> tuple[float, float]:
    """From the first pause on, until the time is over or the backlog nearly; and the rate that the sink had."""
    options = {"per_s": sink_rate / PARTITIONS}
    with StreamProcess(broker, topic, handler="throttle", options=options) as process:
        counters = process.counters
        process.wait_for(lambda: process.status["pauses"] > PARTITIONS and process.status.get("received_bytes", 0) > 0)
        before = process.status
        enough = int(size.backlog_records * 0.9)
        limit_s = time.monotonic() + size.stall_s
        process.wait_for(
            lambda: time.monotonic() >= limit_s or counters.records >= enough, timeout_s=size.stall_s + 60, every_s=0.1
        )
        after = process.status
        received = after["received_bytes"] - before["received_bytes"]
        handled = after["handled_bytes"] - before["handled_bytes"]
        return received / handled, counters.records / counters.took_s
