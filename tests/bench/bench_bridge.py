"""The bridge between a real Mosquitto and a real Kafka that share this machine with it. 20 minutes; ``--short``: 3."""

import argparse
from typing import Final

from tests.bench.bridge import added, durable, memory, request, servers, uplink
from tests.bench.bridge.size import SHORT, WHOLE
from tests.bench.report import Figure, publish

GROUPS: Final = {
    "uplink": uplink.measure,
    "added": added.measure,
    "memory": memory.measure,
    "durable_cpu": durable.measure,
    "request": request.measure,
}
"""What ``--only`` takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(GROUPS), action="append", help="these groups; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer messages, shorter: for trying, not for stating")
    options = parser.parse_args()
    chosen = options.only or list(GROUPS)
    figures: list[Figure] = []
    for name in chosen:
        with servers.running() as platform:
            found = GROUPS[name](platform, SHORT if options.short else WHOLE)
        print(*(f"{one.figure}: {one.value:.4g} {one.unit}" for one in found), sep="\n", flush=True)
        figures += found
    publish("bridge" if options.only is None else "-".join(["bridge", *chosen]), figures)


if __name__ == "__main__":
    main()
