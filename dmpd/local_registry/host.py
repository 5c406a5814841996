"""Runs engines, one or hundreds, on one event loop until told to stop: the shared clock, the states, the ending."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from dmpd.local_registry import metrics
from dmpd.local_registry.engine import DRAIN_S, Engine
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.watchdog import Watchdog

POLL_S: Final = 0.1
NOT_ENROLLED: Final = (
    "not enrolled: this router has no serial (rae) yet; run dmpctl enroll SERIAL --broker HOST as root"
)

_log = logging.getLogger(__name__)


async def serve(
    engines: Sequence[Engine],
    *,
    lifecycle: Lifecycle,
    watchdog: Watchdog | None,
    tick_s: float,
    drain_s: float = DRAIN_S,
) -> None:
    """Run ``engines`` until the lifecycle asks to stop, then drain them all at once.

    A second stop ends the drain. An engine that dies of an unforeseen error takes the process along, for the
    supervisor to start anew: what was committed waits on the disk.

    Args:
        tick_s: How often each engine hears of the time; they are spread over it.
    """
    running = [asyncio.create_task(engine.run(), name=f"engine {engine.rae}") for engine in engines]
    try:
        await _until_stop(engines, running, lifecycle, watchdog, tick_s)
        lifecycle.set_state("draining")
        draining = asyncio.gather(*(engine.drain(drain_s) for engine in engines))
        while not draining.done() and not lifecycle.second_stop:
            _beat(watchdog)
            await asyncio.wait({draining}, timeout=POLL_S)
        if not draining.done():
            draining.cancel()
            _log.warning("told twice to stop: the rest of the outbox waits on the disk")
        with contextlib.suppress(asyncio.CancelledError):
            emptied = sum(await draining)
            _log.info("drained: %d of %d outboxes empty", emptied, len(engines))
    finally:
        for task in running:
            if lifecycle.second_stop or not task.done():
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _until_stop(
    engines: Sequence[Engine],
    running: Sequence["asyncio.Task[None]"],
    lifecycle: Lifecycle,
    watchdog: Watchdog | None,
    tick_s: float,
) -> None:
    turns = max(1, round(tick_s / POLL_S))
    turn = 0
    while not lifecycle.stop_requested:
        _beat(watchdog)
        now_s = time.monotonic()
        for engine in engines[turn % turns :: turns]:
            engine.tick(now_s)
        if turn % 10 == 0:
            _report(engines, lifecycle)
        turn += 1
        for task in running:
            if task.done():
                task.result()
                raise RuntimeError(f"{task.get_name()} ended by itself")
        await asyncio.sleep(POLL_S)


async def wait_for_enrolment(lifecycle: Lifecycle, watchdog: Watchdog) -> None:
    """Without a serial there is nothing to do but to say so, until told to stop."""
    lifecycle.set_state("degraded", NOT_ENROLLED)
    while not lifecycle.stop_requested:
        watchdog.beat()
        await asyncio.sleep(POLL_S)
    lifecycle.set_state("draining")


def _beat(watchdog: Watchdog | None) -> None:
    if watchdog is not None:
        watchdog.beat()


def _report(engines: Sequence[Engine], lifecycle: Lifecycle) -> None:
    if lifecycle.state == "starting" and not all(engine.opened for engine in engines):
        return
    problems = [f"{engine.rae}: {problem}" for engine in engines for problem in engine.problems()]
    lifecycle.set_state("degraded" if problems else "ready", "; ".join(problems[:3]))
    metrics.outbox_rows.set(sum(engine.journal.rows for engine in engines))
    metrics.outbox_bytes.set(sum(engine.journal.bytes_held for engine in engines))


def status(engines: Sequence[Engine]) -> dict[str, Any]:
    """For the control socket: one RAE's facts, or the sum of many with each under ``raes``; of none its empty name."""
    facts = [engine.summary() for engine in engines]
    if not facts:
        return {"rae": ""}
    if len(facts) == 1:
        return facts[0]
    devices: dict[str, int] = {}
    for one in facts:
        for state, count in one["devices"].items():
            devices[state] = devices.get(state, 0) + count
    return {
        "committed": sum(one["committed"] for one in facts),
        "outbox_rows": sum(one["outbox_rows"] for one in facts),
        "outbox_bytes": sum(one["outbox_bytes"] for one in facts),
        "outbox_age_s": max((one["outbox_age_s"] for one in facts), default=0.0),
        "connected": sum(one["connected"] for one in facts),
        "devices": devices,
        "raes": {one["rae"]: one for one in facts},
    }


def devices(engines: Sequence[Engine]) -> dict[str, Any]:
    """For the control socket: what each RAE knows of its devices now."""
    return {"devices": [{"rae": engine.rae, **one} for engine in engines for one in engine.device_list()]}
