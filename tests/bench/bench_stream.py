"""The stream on a real Kafka that shares this machine: speed, latency, memory, fairness. 40 minutes; ``--short``: 6."""

import argparse
from typing import Final

from tests.bench.report import Figure, publish
from tests.bench.stream import broker, latency, path
from tests.bench.stream.size import SHORT, WHOLE

GROUPS: Final = {"path": path.measure, "latency": latency.measure}
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
            figures += GROUPS[name](kafka, SHORT if options.short else WHOLE)
    publish("stream" if options.only is None else "-".join(["stream", *chosen]), figures)


if __name__ == "__main__":
    main()
