"""A stream as a process of its own: ``python -m tests.bench.stream.daemon FILE``; ``StreamProcess`` starts it."""

import json
import sys
from pathlib import Path
from typing import Any

from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.log import setup
from dmpd.runtime.settings import KafkaSettings, LogSettings
from dmpd.stream import metrics
from dmpd.stream.fetch_positions import FetchPositions
from dmpd.stream.run import run
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus
from tests.bench.stream.counters import Counters


class FileStatus(StreamStatus):
    """Writes what the benchmark wants to know of the parent: state, counters, what the client has received."""

    def __init__(self, path: Path, counters: Counters, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._path = path
        self._counters = counters
        self._lifecycle = lifecycle
        self._received_bytes = 0
        self._handled_bytes = 0

    def watch_consumer(self) -> None:
        """See the statistics that the stream asks its consumer for, before it does."""
        read = FetchPositions.__call__

        def see(positions: FetchPositions, statistics: str) -> None:
            self._received_bytes = json.loads(statistics)["rxmsg_bytes"]
            self._handled_bytes = self._counters.bytes
            read(positions, statistics)

        FetchPositions.__call__ = see  # type: ignore[assignment,method-assign]

    def publish(self, *args: Any, **kwargs: Any) -> None:
        super().publish(*args, **kwargs)
        picture = self.snapshot()
        found = {
            "state": self._lifecycle.state,
            "partitions": len(picture["partitions"]),
            "workers": sum(one["worker_pid"] is not None for one in picture["partitions"].values()),
            "placed": metrics.RECORDS._value.get(),
            "pauses": metrics.PAUSES._value.get(),
            "received_bytes": self._received_bytes,
            "handled_bytes": self._handled_bytes,
        }
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(found))
        temporary.replace(self._path)


def main() -> int:
    config = json.loads(Path(sys.argv[1]).read_text())
    lifecycle = Lifecycle("stream")
    lifecycle.install_signals()
    setup(LogSettings(), "stream")
    status = FileStatus(Path(config["status"]), Counters(Path(config["argument"]["counters"])), lifecycle)
    status.watch_consumer()
    return run(
        KafkaSettings(bootstrap_servers=config["bootstrap"], options=config["client"]),
        StreamSettings(**config["settings"]),
        handler=config["handler"],
        lifecycle=lifecycle,
        handler_argument=json.dumps(config["argument"]).encode(),
        status=status,
    )


if __name__ == "__main__":
    sys.exit(main())
