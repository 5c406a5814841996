"""The kernel as a source of evidence: its neighbours, the bridge's forwarding table, its links. And the way to ask.

This file moves: feed in, signals out, resyncs and pokes. What events mean is decided in ``neighbour_table``.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from dmpd.local_registry.source import LanSignal, LanUp
from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.neighbour_table import NAME, NeighbourTable
from dmpd.local_registry.sources.netlink import RECEIVE_BUFFER_BYTES, Feed, FeedLostError, open_feed
from dmpd.local_registry.sources.poker import Poker
from dmpd.local_registry.sources.trouble import Trouble

TICK_S: Final = 0.1
IDLE_S: Final = 1.0
RESYNC_INTERVAL_S: Final = 60.0
"""The kernel does not tell everything: that a device goes on talking shows only in the age of its frames."""
REOPEN_INTERVAL_S: Final = 1.0
"""Least time between two resyncs forced by lost events: in a flood, dumping all the time helps nobody."""
POKED_BESIDE_MAX: Final = 3


class NeighbourSource:
    """A ``LanSource`` over the LAN ``interface`` (its bridge) of this process's network namespace.

    Needs no privilege. The interface may be absent now or later, which is a LAN that is down. For one event loop,
    asyncio's own; one consumer of ``signals`` at a time.
    """

    name: Final = NAME

    def __init__(
        self,
        interface: str,
        *,
        resync_interval_s: float = RESYNC_INTERVAL_S,
        receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resync_interval_s = resync_interval_s
        self._receive_buffer_bytes = receive_buffer_bytes
        self._now_s = now_s
        self._table = NeighbourTable(interface)
        self._refused = 0
        self._poker = Poker(interface)
        self._trouble = Trouble(f"neighbours of {interface}")

    async def signals(self) -> AsyncIterator[LanSignal]:
        """Begin with all that is known, then yield what happens. Lost events end in a resync, never in an exception."""
        try:
            for signal in self._table.known(self._now_s()):
                yield signal
            while True:
                opened_s = self._now_s()
                try:
                    async with (
                        open_feed(receive_buffer_bytes=self._receive_buffer_bytes) as feed,
                        aclosing(self._follow(feed)) as following,
                    ):
                        async for signal in following:
                            yield signal
                except FeedLostError as error:
                    self._count_lost(error)
                await asyncio.sleep(max(0.0, opened_s + REOPEN_INTERVAL_S - self._now_s()))
        finally:
            self._poker.close()

    def mac_of(self, ip: str) -> str | None:
        """The MAC that the kernel has for ``ip`` on the LAN; up to date while ``signals`` is being consumed."""
        return self._table.mac_of(ip)

    async def dump(self) -> Sequence[LanSignal]:
        """What is known now; up to date while ``signals`` is being consumed."""
        return self._table.known(self._now_s())

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """Send a datagram to ``ip`` and to other addresses of the same device: it is down only if none answers."""
        beside = self._table.ask(ip, mac, self._now_s())[:POKED_BESIDE_MAX]
        for address in (ip, *beside):
            self._poker.poke(address)

    async def _follow(self, feed: Feed) -> AsyncGenerator[LanSignal, None]:
        resync_at_s = self._now_s()
        while True:
            if self._now_s() >= resync_at_s:
                dump = await feed.dump()
                metrics.resyncs.inc()
                self._trouble.over()
                resync_at_s = self._now_s() + self._resync_interval_s
                found = self._table.resync(dump, self._now_s())
            else:
                found = []
                for event in await feed.events(timeout_s=TICK_S if self._table.is_waiting() else IDLE_S):
                    found += self._table.apply(event, self._now_s())
                found += self._table.tick(self._now_s())
            if any(isinstance(signal, LanUp) for signal in found):
                resync_at_s = self._now_s()
            for address in self._table.take_doubtful():
                self._poker.poke(address)
            metrics.stations_refused.inc(self._table.refused - self._refused)
            self._refused = self._table.refused
            for signal in found:
                yield signal

    def _count_lost(self, error: FeedLostError) -> None:
        if error.overflow:
            metrics.feed_overflows.inc()
        else:
            metrics.troubles.labels(NAME).inc()
            self._trouble.tell(error.sentence)
