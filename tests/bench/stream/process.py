"""Starts a stream on a topic and watches it: records handled, CPU, memory."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.bench.stream import processes
from tests.bench.stream.broker import Broker
from tests.bench.stream.counters import Counters

_ROOT = Path(__file__).resolve().parents[3]


class StreamProcess:
    """Started by ``with``; ended by KILL at its end, if it was not told to drain before.

    ``options`` are the handler's, ``client`` librdkafka's (for trying), ``settings`` the stream's.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        handler: str = "swallow",
        options: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        **settings: object,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dmpd-bench-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self.counters_path = folder / "counters"
        self.counters = Counters(self.counters_path)
        self._status = folder / "status"
        self._log = folder / "log"
        self._config = folder / "config.json"
        self._config.write_text(
            json.dumps(
                {
                    "bootstrap": broker.bootstrap,
                    "settings": {"topic": topic, "dead_letter_topic": broker.dead, "group": broker.unique("g")}
                    | settings,
                    "handler": f"tests.bench.stream.handlers:{handler}",
                    "argument": {"counters": str(self.counters_path)} | (options or {}),
                    "status": str(self._status),
                    "client": client or {},
                }
            )
        )

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.stream.daemon", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=_ROOT, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.counters.close()
        self._folder.cleanup()

    @property
    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._status.read_text())
        except FileNotFoundError:
            return {"state": "starting", "partitions": 0, "workers": 0, "placed": 0, "pauses": 0}
        return found

    def pids(self) -> tuple[int, list[int]]:
        """The parent, and the fork server with the workers."""
        return self._process.pid, processes.descendants(self._process.pid)

    def cpu_s(self) -> tuple[float, float]:
        """Of the parent, and of the fork server with the workers."""
        parent, others = self.pids()
        return processes.cpu_s([parent]), processes.cpu_s(others)

    def pss_mib(self) -> float:
        parent, others = self.pids()
        return processes.pss_mib([parent, *others])

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float = 120.0, every_s: float = 0.005) -> None:
        """Raises RuntimeError, with the log, if it ends before, or ``condition`` is never true."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"stream: not in time, or ended: {self.status}\n{self._log.read_text()[-3000:]}")
            time.sleep(every_s)

    def wait_ready(self, partitions: int) -> None:
        """All partitions are ours, each with a worker."""
        self.wait_for(lambda: self.status["workers"] == partitions)

    def watch(self, duration_s: float) -> None:
        """Let it run for so long. Raises RuntimeError if it ends."""
        until_s = time.monotonic() + duration_s
        self.wait_for(lambda: time.monotonic() >= until_s, timeout_s=duration_s + 60, every_s=0.1)

    def drain(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(60) != 0:
            raise RuntimeError(f"stream: did not drain\n{self._log.read_text()[-3000:]}")
