"""SSDP as a source of evidence: who answers searches and announces itself, its ESN, name, maker and model.

This file moves: searches out, messages in, and the waiting in between. What messages mean is decided in ``ssdp_book``,
how many are looked at in ``ssdp_gate``, which descriptions are asked for in ``describer``. IPv4 only.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

from dmpd.local_registry.source import Evidence, LanSignal
from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.describer import Describer, Found, MacOf
from dmpd.local_registry.sources.lan_addresses import LanAddresses
from dmpd.local_registry.sources.ssdp_book import NAME, SsdpBook
from dmpd.local_registry.sources.ssdp_ether import GROUP, Ether
from dmpd.local_registry.sources.ssdp_gate import Bucket, SenderGate
from dmpd.local_registry.sources.ssdp_message import DIAL_TARGET, MDX_TARGETS, ROOT_TARGET, SsdpMessage, parse, search
from dmpd.local_registry.sources.trouble import Trouble

SEARCH_INTERVAL_S: Final = 60.0
FIRST_SEARCHES_S: Final = (0.2, 1.5)
"""After opening: the first may come before the kernel's neighbours are known, or get lost."""
REOPEN_INTERVAL_S: Final = 1.0
TICK_S: Final = 0.25
SHORT_TICK_S: Final = 0.02
"""While a message waits for its sender's MAC, or somebody is being asked."""
ASK_AGAIN_S: Final = (0.05, 0.15, 0.4, 1.0, 3.0)
"""Who does not answer at once is asked again: at a DHCP ACK a device may not have put its address to use yet."""
ASKED_MAX: Final = 1024
HOLD_S: Final = 2.0
HOLD_QUIETLY_S: Final = 0.1
"""Who just answered us has asked for our MAC, and the kernel learned its own by that: news of it is under way."""
STRANGERS_ASKED_PER_S: Final = 10.0
STRANGERS_ASKED_BURST: Final = 64.0
"""Each one makes the kernel look for a neighbour, of which it keeps a thousand: made-up senders must not fill them."""
HELD_SENDERS_MAX: Final = 256
HELD_MESSAGES_MAX: Final = 8
SAID_MAX: Final = 1024
TARGETS: Final = (*MDX_TARGETS, DIAL_TARGET, ROOT_TARGET)
ASKS_PER_S: Final = 100.0
ASKS_BURST: Final = 400.0
"""Devices asked; each takes one datagram per target."""


class _Held:
    """Messages of a sender whose MAC the kernel does not know yet."""

    __slots__ = ("asked", "messages", "since_s")

    def __init__(self, since_s: float) -> None:
        self.messages: list[SsdpMessage] = []
        self.since_s = since_s
        self.asked = False


class SsdpSource:
    """A ``LanSource`` that speaks SSDP over ``ether``. For one event loop; one consumer of ``signals`` at a time.

    Evidence always has the MAC that the kernel knows for the sender's address: what a sender without one says is held
    for 2 s while it is asked, which makes the kernel find out, and then dropped.
    """

    name: Final = NAME

    def __init__(
        self,
        ether: Ether,
        mac_of: MacOf,
        *,
        search_interval_s: float = SEARCH_INTERVAL_S,
        descriptions: bool = True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wire it; nothing is opened yet.

        Args:
            ether: The LAN.
            mac_of: The kernel's neighbours on the LAN interface; called for each datagram.
            search_interval_s: Everybody is asked so often.
            descriptions: Whether to fetch the descriptions that devices point to.
            now_s: Monotonic clock.
        """
        self._ether = ether
        self._mac_of = mac_of
        self._search_interval_s = search_interval_s
        self._now_s = now_s
        self._book = SsdpBook()
        self._gate = SenderGate()
        self._sending = Bucket(per_s=ASKS_PER_S, burst=ASKS_BURST)
        self._asking_strangers = Bucket(per_s=STRANGERS_ASKED_PER_S, burst=STRANGERS_ASKED_BURST)
        self._describer = Describer(ether.fetch, self, tell=self._described, now_s=now_s) if descriptions else None
        self._held: dict[str, _Held] = {}
        self._asking: dict[str, list[float]] = {}
        """When to ask again, by address."""
        self._said: deque[Evidence] = deque(maxlen=SAID_MAX)
        self._wake = asyncio.Event()
        self._searches_at_s: list[float] = []
        self._tick_at_s = 0.0
        self._open = False
        self.addresses = LanAddresses()
        self._trouble = Trouble("SSDP")

    def mac_of(self, ip: str) -> str | None:
        """The MAC of a device of the LAN, as the kernel knows it now."""
        return self._mac_of(ip)

    def dial_location(self, mac: str) -> str | None:
        """Where this device's DIAL service is described, as it said last."""
        return self._book.dial_location(mac)

    async def signals(self) -> AsyncIterator[LanSignal]:
        """Begin with all that is known, then yield what is said. A LAN that is not there is tried again each second."""
        for signal in await self.dump():
            yield signal
        describing = None if self._describer is None else asyncio.create_task(self._describer.run(), name="describer")
        try:
            while True:
                if describing is not None and describing.done():
                    describing.result()  # raises what it died of
                try:
                    self._step()
                except OSError as error:
                    metrics.troubles.labels(NAME).inc()
                    self._trouble.tell(str(error))
                    self._shut()
                while self._said:
                    yield self._said.popleft()
                await self._pause()
        finally:
            self._shut()
            if describing is not None:
                describing.cancel()
                with suppress(asyncio.CancelledError):
                    await describing

    async def dump(self) -> Sequence[LanSignal]:
        """What is known of all that speak; says nothing on who is alive."""
        return list(self._book.known())

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """Ask one device what it is; again a few times if it does not answer and has not answered before."""
        if not self._open or not self.addresses.is_device(ip):
            return
        now_s = self._now_s()
        if (mac is None or not self._book.speaks(mac)) and ip not in self._asking and len(self._asking) < ASKED_MAX:
            self._asking[ip] = [now_s + delay_s for delay_s in ASK_AGAIN_S]
            self._wake.set()
        self._ask(ip, now_s)

    def _step(self) -> None:
        """One turn: whatever is due. Raises OSError when the sockets are of no use."""
        now_s = self._now_s()
        if not self._open:
            self._ether.open(self._receive)
            self._open = True
            self._searches_at_s = [now_s + delay_s for delay_s in FIRST_SEARCHES_S]
            self.addresses = self._ether.addresses()
        if self._searches_at_s and now_s >= self._searches_at_s[0]:
            self._search(now_s)
        self._ask_again(now_s)
        self._release(now_s)
        for ip in self._book.take_doubtful():
            self._ask(ip, now_s)
        if now_s >= self._tick_at_s:
            self._tick_at_s = now_s + TICK_S
            self._tick(now_s)

    def _tick(self, now_s: float) -> None:
        for evidence in self._book.tick(now_s):
            if self._describer is not None and evidence.mac is not None:
                self._describer.forget(evidence.mac)
            # Silent, and the kernel does not have it either: that it is gone is for the neighbours to say.
            if evidence.ip is not None and self._mac_of(evidence.ip) == evidence.mac:
                self._said.append(evidence)

    async def _pause(self) -> None:
        self._wake.clear()
        if self._said:
            return
        timeout_s = TICK_S
        if not self._open:
            timeout_s = REOPEN_INTERVAL_S
        elif self._held or self._asking:
            timeout_s = SHORT_TICK_S
        with suppress(TimeoutError):
            # Not wait_for: Python 3.11's loses a cancellation that comes with the wake-up, and the source never ends.
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()

    def _shut(self) -> None:
        self._open = False
        self._ether.close()
        self._held.clear()
        self._asking.clear()

    def _search(self, now_s: float) -> None:
        """Ask everybody."""
        self.addresses = self._ether.addresses()
        for target in TARGETS:
            self._ether.send(search(target, host=GROUP, wait_s=1), None)
        metrics.searches.labels("all").inc()
        self._book.asked(now_s)
        self._trouble.over()
        del self._searches_at_s[0]
        if not self._searches_at_s:
            self._searches_at_s = [now_s + self._search_interval_s]

    def _ask(self, ip: str, now_s: float) -> None:
        """Ask one device; one that cannot be asked is no reason to give up the sockets."""
        if not self._sending.take(now_s):
            metrics.searches.labels("over_rate").inc()
            return
        try:
            for target in TARGETS:
                self._ether.send(search(target, host=ip, wait_s=None), ip)
        except OSError:
            metrics.searches.labels("failed").inc()
            return
        metrics.searches.labels("one").inc()
        mac = self._mac_of(ip)
        if mac is not None:
            self._book.asked(now_s, mac=mac)

    def _ask_again(self, now_s: float) -> None:
        for ip, due_s in list(self._asking.items()):
            if now_s >= due_s[0]:
                del due_s[0]
                if not due_s:
                    del self._asking[ip]
                self._ask(ip, now_s)

    def _receive(self, datagram: bytes, ip: str) -> None:
        """Take in one datagram. The cheap refusals first: there may be ten thousand a second."""
        now_s = self._now_s()
        mac = self._mac_of(ip)
        if not self._gate.admits(ip, now_s, known=mac is not None):
            metrics.ssdp_datagrams.labels("over_rate").inc()
            return
        message = parse(datagram) if self.addresses.is_device(ip) else None
        if message is None:
            metrics.ssdp_datagrams.labels("ignored").inc()
        elif mac is None:
            self._hold(message, ip, now_s)
        else:
            self._take(message, ip, mac, now_s)

    def _hold(self, message: SsdpMessage, ip: str, now_s: float) -> None:
        held = self._held.get(ip)
        if held is None and len(self._held) < HELD_SENDERS_MAX:
            held = self._held[ip] = _Held(now_s)
            self._wake.set()
        if held is None or len(held.messages) >= HELD_MESSAGES_MAX:
            metrics.ssdp_datagrams.labels("stranger").inc()
            return
        held.messages.append(message)

    def _release(self, now_s: float) -> None:
        for ip, held in list(self._held.items()):
            mac = self._mac_of(ip)
            if mac is not None:
                del self._held[ip]
                for message in held.messages:
                    self._take(message, ip, mac, now_s)
            elif not held.asked and now_s - held.since_s >= HOLD_QUIETLY_S:
                held.asked = True
                if self._asking_strangers.take(now_s):
                    self._ask(ip, now_s)
            elif now_s - held.since_s >= HOLD_S:
                del self._held[ip]
                metrics.ssdp_datagrams.labels("stranger").inc(len(held.messages))

    def _take(self, message: SsdpMessage, ip: str, mac: str, now_s: float) -> None:
        metrics.ssdp_datagrams.labels("taken").inc()
        if message.kind != "byebye":
            self._asking.pop(ip, None)
        self._said.extend(self._book.heard(message, ip=ip, mac=mac, now_s=now_s))
        if self._describer is not None and message.location and self._book.wants_description(message, mac):
            self._describer.wish(message.location, ip=ip, mac=mac, from_dial=message.target == DIAL_TARGET)
        if self._said or message.kind == "byebye":
            self._wake.set()

    def _described(self, found: Found) -> None:
        self._said.extend(
            self._book.described(
                found.description, found.app, mac=found.mac, from_dial=found.from_dial, now_s=self._now_s()
            )
        )
        self._wake.set()
