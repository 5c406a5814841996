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
        before, begun_s = process.cpu_s(), time.monotonic()
        process.watch(size.steady_s)
        after, took_s = process.cpu_s(), time.monotonic() - begun_s
    parent, workers = ((now - then) / took_s * 100 for now, then in zip(after, before, strict=True))
    return [
        figure("idle_cpu", "% of a core", [parent + workers], bar="<= 2"),
        figure("idle_cpu/workers", "% of a core", [workers]),
    ]
