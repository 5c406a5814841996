"""Faults in seeded random order: each has a beginning and an end, and never two at once on one victim."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from dmpd.lab.server_process import ServerProcess
from tests.support.bridge_process import BridgeProcess
from tests.support.proxy import TcpProxy

HOLD_S = (0.3, 8.0)
CALM_S = (0.2, 2.5)

Act = Callable[[], Awaitable[None]]


class Fault(NamedTuple):
    name: str
    begin: Act
    end: Act


class Chaos:
    """Victims by name, each with what can be done to it; ``history`` tells what was."""

    def __init__(self, victims: dict[str, list[Fault]], *, seed: int) -> None:
        self._victims = victims
        self._dice = random.Random(seed)
        self.seed = seed
        self.history: list[str] = []

    async def rage(self, seconds: float) -> None:
        """One or two victims at a time until ``seconds`` have passed; ends with everything healed."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            names = self._dice.sample(sorted(self._victims), self._dice.choice((1, 1, 2)))
            faults = [self._dice.choice(self._victims[name]) for name in names]
            hold_s = self._dice.uniform(*HOLD_S)
            self.history.append(
                f"{time.monotonic() - began_s:.1f} s: {[one.name for one in faults]} for {hold_s:.1f} s"
            )
            for fault in faults:
                await fault.begin()
            await asyncio.sleep(hold_s)
            for fault in faults:
                await fault.end()
            await asyncio.sleep(self._dice.uniform(*CALM_S))

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}", *self.history])


def of_server(name: str, process: ServerProcess) -> list[Fault]:
    def blocking(act: Callable[[], None]) -> Act:
        async def run() -> None:
            await asyncio.to_thread(act)

        return run

    return [
        Fault(f"{name} killed", blocking(process.kill), blocking(process.start)),
        Fault(f"{name} frozen", blocking(process.freeze), blocking(process.thaw)),
    ]


def of_bridge(process: BridgeProcess) -> list[Fault]:
    async def kill() -> None:
        await asyncio.to_thread(process.kill)

    async def start() -> None:
        process.start()

    async def freeze() -> None:
        os.kill(process.pid, signal.SIGSTOP)

    async def thaw() -> None:
        os.kill(process.pid, signal.SIGCONT)

    return [Fault("bridge killed", kill, start), Fault("bridge frozen", freeze, thaw)]


def of_proxy(name: str, proxy: TcpProxy) -> list[Fault]:
    async def up() -> None:
        proxy.set("up")

    def setting(mode) -> Act:
        async def run() -> None:
            proxy.set(mode)

        return run

    return [Fault(f"{name}: {mode}", setting(mode), up) for mode in ("stall", "reset", "refuse")]
