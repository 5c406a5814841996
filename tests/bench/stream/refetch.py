"""``refetch``: bytes that the client received, over bytes handled, with a sink at 30 % of the stream's speed."""

from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker
from tests.bench.stream.path import PARTITIONS
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

_SHARE = 0.3
_CALIBRATION_RECORDS = 500_000
_BEGIN_S = 30.0
"""At most until each partition was paused; so much more must be there than the watched time takes."""


def measure(broker: Broker, size: Size) -> list[Figure]:
    topic = broker.filled(PARTITIONS, size.backlog_records)
    full_rate = _full_rate(broker, topic)
    wanted = max(size.backlog_records, int(full_rate * _SHARE * (size.stall_s + _BEGIN_S)))
    broker.fill(topic, PARTITIONS, wanted - size.backlog_records)
    runs = [_ratio(broker, topic, full_rate * _SHARE, size.stall_s, wanted) for _ in range(size.state_runs)]
    ratios, sink_rates = zip(*runs, strict=True)
    return [
        figure("refetch", "bytes received / handled", ratios, bar="<= 1.4"),
        figure("refetch/sink", "records/s", sink_rates, reference=[full_rate]),
    ]


def _full_rate(broker: Broker, topic: str) -> float:
    with StreamProcess(broker, topic) as process:
        process.wait_for(lambda: process.counters.records >= _CALIBRATION_RECORDS, every_s=0.002)
        return process.counters.records / process.counters.took_s


def _ratio(broker: Broker, topic: str, sink_rate: float, duration_s: float, records: int) -> tuple[float, float]:
    """From the first pause of each on, for all of ``duration_s``; and the rate that the sink had.

    Raises RuntimeError if it came to the end of the topic's ``records`` meanwhile.
    """
    options = {"per_s": sink_rate / PARTITIONS}
    with StreamProcess(broker, topic, handler="throttle", options=options) as process:
        process.wait_for(lambda: process.status["pauses"] > PARTITIONS and process.status.get("received_bytes", 0) > 0)
        before = process.status
        process.watch(duration_s)
        after = process.status
        if after["placed"] >= records:
            raise RuntimeError(f"refetch: the backlog of {records} records did not last for {duration_s} s")
        received = after["received_bytes"] - before["received_bytes"]
        handled = after["handled_bytes"] - before["handled_bytes"]
        return received / handled, process.counters.records / process.counters.took_s
