"""A request there and back: ``ping``, from Kafka's client over bridge and broker to a RAE's store, and back to us.

As ``dmpctl request`` does it, without the start of its Python. One at a time; the RAE is a simulated one in a process
of its own, with a store on the disk: a request costs it two flushes, and a response a third.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dmpd.cli.request_sender import RequestSender, new_request
from dmpd.model.topics import RAE_SESSION
from dmpd.runtime.health import fetch
from tests.bench.bridge.servers import Platform, wait_for
from tests.bench.bridge.size import Size
from tests.bench.report import Figure, figure

RAE: Final = "sim-0001"
_WARM_UP: Final = 50
_TIMEOUT_S: Final = 60.0


def measure(platform: Platform, size: Size) -> list[Figure]:
    topics = platform.topics()
    p50_ms, p99_ms = [], []
    with platform.bridge(topics), _rae(platform):
        sender = RequestSender(platform.kafka.settings, topics, "op-bench")
        _ping(sender, _WARM_UP)
        for _ in range(size.runs):
            took_ms = sorted(_ping(sender, size.requests))
            p50_ms.append(took_ms[len(took_ms) // 2])
            p99_ms.append(took_ms[len(took_ms) * 99 // 100])
        sender.close()
    return [
        figure("request/p50", "ms", p50_ms, bar="<= 40"),
        figure("request/p99", "ms", p99_ms, bar="<= 250"),
    ]


def _ping(sender: RequestSender, count: int) -> list[float]:
    took_ms = []
    for _ in range(count):
        began_s = time.monotonic()
        response = sender.ask(new_request(RAE, RAE_SESSION, "ping", {}), lifetime_s=30)
        took_ms.append((time.monotonic() - began_s) * 1000)
        if response.outcome != "done":
            raise RuntimeError(f"ping: {response.outcome} {response.error}")
    return took_ms


@contextmanager
def _rae(platform: Platform) -> Iterator[None]:
    state, tls = platform.folder / "simulate", platform.folder / "tls"
    platform.settings(RAE)
    command = [str(Path(sys.executable).with_name("dmpd")), "local-registry", "--simulate", "1", "--devices", "1"]
    command += ["--rate", "0", "--state-dir", str(state), "--certificates", str(tls)]
    command += ["--mqtt-port", str(platform.mosquitto.port)]
    with (platform.folder / "simulate.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: _ready(state), "the RAE is connected", _TIMEOUT_S)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _ready(state: Path) -> bool:
    try:
        return fetch(f"unix:{state / 'control.sock'}", "/readyz")[0] == 200
    except OSError:
        return False
