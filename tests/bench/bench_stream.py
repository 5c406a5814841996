"""The stream on a real Kafka that shares this machine: speed, latency, memory, fairness. 40 minutes; ``--short``: 6."""

from typing import Final

from tests.bench import groups
from tests.bench.stream import broker, idle, isolation, latency, memory, path, pauses, rebalance, refetch, ring, workers
from tests.bench.stream.size import SHORT, WHOLE

GROUPS: Final = {
    "ring": ring.measure,
    "path": path.measure,
    "latency": latency.measure,
    "isolation": isolation.measure,
    "memory": memory.measure,
    "refetch": refetch.measure,
    "pauses": pauses.measure,
    "rebalance": rebalance.measure,
    "idle_cpu": idle.measure,
    "workers": workers.measure,
}
"""What ``--only`` takes. ``path`` brings ``path_defaults``."""


def main() -> None:
    options = groups.parse(__doc__, GROUPS)
    size = SHORT if options.short else WHOLE
    with broker.running() as kafka:
        groups.run("stream", options, GROUPS, lambda measure: measure(kafka, size))


if __name__ == "__main__":
    main()
