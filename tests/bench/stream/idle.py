"""``idle_cpu``: what parent, fork server and 48 workers use while nothing comes."""

import time

from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

PARTITIONS = 48
_SETTLE_S = 5.0


def measure(broker: Broker, size: Size) -> list[Figure]:
    with StreamProcess(broker, broker.topic(PARTITIONS)) as process:
        process.wait_ready(PARTITIONS)
        process.watch(_SETTLE_S)
        shares = [_shares_percent(process, size.steady_s) for _ in range(size.state_runs)]
    return [
        figure("idle_cpu", "% of a core", [parent + workers for parent, workers in shares], bar="<= 2"),
        figure("idle_cpu/workers", "% of a core", [workers for _, workers in shares]),
    ]


def _shares_percent(process: StreamProcess, duration_s: float) -> tuple[float, float]:
    """Of a core: what the parent used, and the fork server with the workers."""
    before, begun_s = process.cpu_s(), time.monotonic()
    process.watch(duration_s)
    after, took_s = process.cpu_s(), time.monotonic() - begun_s
    parent, workers = ((now - then) / took_s * 100 for now, then in zip(after, before, strict=True))
    return parent, workers
