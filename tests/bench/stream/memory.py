"""``memory``: of all processes of a stream, with a backlog in Kafka and a sink that stands still.

The sink works for a while before, so that the rings take all that they may: how much that is depends on its speed.
"""

from dmpd.stream.settings import MEBIBYTE, StreamSettings
from tests.bench.report import Figure, worst
from tests.bench.stream.broker import Broker
from tests.bench.stream.process import StreamProcess
from tests.bench.stream.size import Size

_SAMPLES = 20
_STILL_S = 2.0
_PARENT_MIB = 80
_PARENT_PARTITION_MIB = 2
_WORKER_MIB = 12
_DESIGN_RING_MIB = 8


def bound_mib(partitions: int, ring_mib: float) -> float:
    """Section 6 of the design, Bounds; one consume call is of 1000 records of 300 bytes."""
    settings = StreamSettings()
    parent_mib = _PARENT_MIB + _PARENT_PARTITION_MIB * partitions + settings.prefetch_bytes_max / MEBIBYTE
    return parent_mib + partitions * (ring_mib + _WORKER_MIB) + settings.consume_records_max * 400 / MEBIBYTE


def measure(broker: Broker, size: Size) -> list[Figure]:
    """Each sample stands for itself in ``memory``; ``growth`` is one of each stall.

    The bar is the design's formula with the rings that there are; the reference is the same with the design's rings.
    """
    ring_mib = StreamSettings().ring_capacity_bytes / MEBIBYTE
    found = []
    for partitions in (12, 48):
        stalls = [_samples_mib(broker, partitions, size) for _ in range(size.state_runs)]
        samples = [one for stall in stalls for one in stall]
        memory = worst(f"memory/{partitions}", "MiB PSS", samples, bar=f"<= {bound_mib(partitions, ring_mib):.0f}")
        memory.reference = bound_mib(partitions, _DESIGN_RING_MIB)
        memory.ratio = memory.value / memory.reference
        found.append(memory)
        growths_mib = [_growth_mib(stall) for stall in stalls]
        found.append(worst(f"memory/{partitions}/growth", "MiB, 2nd half over 1st", growths_mib, bar="<= 1"))
    return found


def _growth_mib(samples: list[float]) -> float:
    half = len(samples) // 2
    return max(samples[half:]) - max(samples[:half])


def _samples_mib(broker: Broker, partitions: int, size: Size) -> list[float]:
    """Evenly over the stall, which begins when every ring has taken what it takes."""
    topic = broker.filled(partitions, size.backlog_records)
    after = size.backlog_records // partitions // 3
    options = {"stalled": list(range(partitions)), "after": after}
    with StreamProcess(broker, topic, handler="stall", options=options) as process:
        process.wait_for(lambda: min(process.counters.counts()[:partitions]) >= after)
        _wait_until_nothing_is_placed(process)
        samples = []
        for _ in range(_SAMPLES):
            samples.append(process.pss_mib())
            process.watch(size.stall_s / _SAMPLES)
    return samples


def _wait_until_nothing_is_placed(process: StreamProcess) -> None:
    placed = -1.0
    while placed != process.status["placed"]:
        placed = process.status["placed"]
        process.watch(_STILL_S)
