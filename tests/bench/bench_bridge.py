"""The bridge between a real Mosquitto and a real Kafka that share this machine with it. 20 minutes; ``--short``: 3."""

import argparse
import subprocess
import sys
import time
from typing import Final

from dmpd.lab.server import ServerError
from dmpd.runtime.errors import UnavailableError
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
_FAILURES: Final = (RuntimeError, OSError, subprocess.SubprocessError, UnavailableError, ServerError)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(GROUPS), action="append", help="these groups; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer messages, shorter: for trying, not for stating")
    options = parser.parse_args()
    chosen = options.only or list(GROUPS)
    figures: list[Figure] = []
    failed: list[str] = []
    began_s = time.monotonic()
    for name in chosen:
        print(f"{time.monotonic() - began_s:.0f} s: {name} begins", flush=True)
        try:
            with servers.running() as platform:
                found = GROUPS[name](platform, SHORT if options.short else WHOLE)
        except _FAILURES as error:  # the others are worth having all the same
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        print(*(f"{one.figure}: {one.value:.4g} {one.unit}" for one in found), sep="\n", flush=True)
        figures += found
    publish("bridge" if options.only is None else "-".join(["bridge", *chosen]), figures)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
