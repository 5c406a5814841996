"""The bridge between a real Mosquitto and a real Kafka that share this machine with it. 20 minutes; ``--short``: 3."""

import subprocess
from collections.abc import Callable
from typing import Final

from dmpd.lab.server import ServerError
from dmpd.runtime.errors import UnavailableError
from tests.bench import groups
from tests.bench.bridge import added, durable, memory, request, servers, uplink
from tests.bench.bridge.size import SHORT, WHOLE, Size
from tests.bench.report import Figure

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
    options = groups.parse(__doc__, GROUPS)
    size = SHORT if options.short else WHOLE

    def measured(measure: Callable[[servers.Platform, Size], list[Figure]]) -> list[Figure]:
        with servers.running() as platform:
            return measure(platform, size)

    groups.run("bridge", options, GROUPS, measured, failures=_FAILURES)


if __name__ == "__main__":
    main()
