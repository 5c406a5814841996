"""The stream on a real Kafka that shares this machine: speed, latency, memory, fairness. 40 minutes; ``--short``: 6."""

import argparse
from typing import Final

from tests.bench.report import Figure, publish
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(GROUPS), action="append", help="these groups; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer records, shorter: for trying, not for stating")
    options = parser.parse_args()
    chosen = options.only or list(GROUPS)
    figures: list[Figure] = []
    with broker.running() as kafka:
        for name in chosen:
            found = GROUPS[name](kafka, SHORT if options.short else WHOLE)
            print(*(f"{one.figure}: {one.value:.4g} {one.unit}" for one in found), sep="\n", flush=True)
            figures += found
    publish("stream" if options.only is None else "-".join(["stream", *chosen]), figures)


if __name__ == "__main__":
    main()
