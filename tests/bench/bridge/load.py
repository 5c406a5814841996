"""Messages at a steady rate from many RAEs, on a thread with a loop of its own."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop

from dmpd.runtime.settings import MqttSettings
from tests.bench.bridge.publishers import Publisher, connect_all
from tests.bench.bridge.servers import Platform

_TICK_S = 0.005
_CONNECT_TIMEOUT_S = 120.0

MakePayload = Callable[[str, int], bytes]
"""From the RAE's serial and the number of the message, counted over all RAEs."""


class Load:
    """``rate_per_s`` messages, the RAEs in turn. ``payload`` may be exchanged while it runs."""

    def __init__(self, publishers: list[Publisher], rate_per_s: float, payload: MakePayload) -> None:
        self._publishers = publishers
        self._rate_per_s = rate_per_s
        self.payload = payload
        self.sent = 0
        self.stopped = False

    async def run(self) -> None:
        began_s = time.monotonic()
        while not self.stopped:
            due = int((time.monotonic() - began_s) * self._rate_per_s)
            while self.sent < due:
                publisher = self._publishers[self.sent % len(self._publishers)]
                publisher.publish(self.payload(publisher.rae, self.sent))
                self.sent += 1
            await asyncio.sleep(_TICK_S)
        for one in self._publishers:
            one.close()


@contextmanager
def running(platform: Platform, *, raes: int, rate_per_s: float, payload: MakePayload) -> Iterator[Load]:
    names = [f"R{n:05}" for n in range(raes)]
    settings = [platform.settings(name) for name in names]
    made: list[Load] = []
    ready = threading.Event()
    thread = threading.Thread(
        target=lambda: uvloop.run(_run(names, settings, rate_per_s, payload, made, ready)), daemon=True
    )
    thread.start()
    if not ready.wait(_CONNECT_TIMEOUT_S):
        raise RuntimeError(f"{raes} RAEs did not connect in {_CONNECT_TIMEOUT_S:g} s")
    try:
        yield made[0]
    finally:
        made[0].stopped = True
        thread.join()


async def _run(
    names: list[str],
    settings: list[MqttSettings],
    rate_per_s: float,
    payload: MakePayload,
    made: list[Load],
    ready: threading.Event,
) -> None:
    load = Load(await connect_all(names, settings), rate_per_s, payload)
    made.append(load)
    ready.set()
    await load.run()
