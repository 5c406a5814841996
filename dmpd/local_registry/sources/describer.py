"""Asks devices for their descriptions: seldom, few at once, and only where nobody can be led to ask somebody else.

A URL is fetched only if its host is the address that named it, that address is a device's of the LAN and not ours, and
the kernel has the sender's MAC for it on the LAN interface, before the question and after the answer. The question
leaves by the LAN interface alone (the ether's business), and where the answer points to is nobody's business.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol

from msgspec import Struct

from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.dial_description import Description, DialApp, parse_app, parse_description
from dmpd.local_registry.sources.http_answer import Answer, Location, parse_location
from dmpd.local_registry.sources.lan_addresses import LanAddresses
from dmpd.local_registry.sources.ssdp_gate import Bucket

AT_ONCE: Final = 4
WAITING_MAX: Final = 64
DEVICES_MAX: Final = 1024
URLS_PER_DEVICE_MAX: Final = 4
REFRESH_S: Final = 600.0
RETRY_S: Final = 60.0
DEVICE_PER_S: Final = 0.1
DEVICE_BURST: Final = 3.0
ALL_PER_S: Final = 10.0
ALL_BURST: Final = 40.0
APP: Final = "Netflix"

MacOf = Callable[[str], str | None]
"""The MAC that the kernel has for an address on the LAN interface, or None: unknown, not answering, elsewhere."""
Fetch = Callable[[Location], Awaitable[Answer | None]]


class Found(Struct, frozen=True, kw_only=True):
    """What one device said of itself."""

    mac: str
    description: Description
    app: DialApp | None
    from_dial: bool


class Surroundings(Protocol):
    """What the decision needs to know of the LAN."""

    @property
    def addresses(self) -> LanAddresses: ...

    def mac_of(self, ip: str) -> str | None: ...


class _Wish(Struct, frozen=True, kw_only=True):
    url: str
    ip: str
    mac: str
    from_dial: bool


class _Device:
    __slots__ = ("budget", "next_at_s")

    def __init__(self) -> None:
        self.budget = Bucket(per_s=DEVICE_PER_S, burst=DEVICE_BURST)
        self.next_at_s: dict[str, float] = {}


def may_fetch(url: str, *, ip: str, mac: str, around: Surroundings) -> Location | None:
    """Where to ask, if ``url``, named by ``mac`` at ``ip``, may be fetched at all; refusals are counted by reason."""
    location = parse_location(url)
    reason = None
    if location is None:
        reason = "form"
    elif location.ip != ip:
        reason = "other_host"
    elif not around.addresses.is_device(ip):
        reason = "not_on_lan"
    elif around.mac_of(ip) != mac:
        reason = "other_mac"
    if reason is not None:
        metrics.urls_refused.labels(reason).inc()
        return None
    return location


class Describer:
    """Fetches what was wished for, four at a time. For one event loop; ``wish`` does not block."""

    def __init__(
        self, fetch: Fetch, around: Surroundings, *, tell: Callable[[Found], None], now_s: Callable[[], float]
    ) -> None:
        self._fetch = fetch
        self._around = around
        self._tell = tell
        self._now_s = now_s
        self._all = Bucket(per_s=ALL_PER_S, burst=ALL_BURST)
        self._devices: dict[str, _Device] = {}
        self._wishes: asyncio.Queue[_Wish] = asyncio.Queue(WAITING_MAX)

    def wish(self, url: str, *, ip: str, mac: str, from_dial: bool) -> None:
        """Fetch ``url`` soon, unless it was fetched lately, its device was asked too often, or too many wait."""
        now_s = self._now_s()
        device = self._devices.get(mac)
        if device is not None and now_s < device.next_at_s.get(url, 0.0):
            return
        if may_fetch(url, ip=ip, mac=mac, around=self._around) is None:
            return
        if device is None:
            if len(self._devices) >= DEVICES_MAX:
                del self._devices[next(iter(self._devices))]
            device = self._devices[mac] = _Device()
        if self._wishes.full() or not device.budget.take(now_s) or not self._all.take(now_s):
            metrics.urls_refused.labels("too_many").inc()
            return
        self._not_before(device, url, now_s + RETRY_S)
        self._wishes.put_nowait(_Wish(url=url, ip=ip, mac=mac, from_dial=from_dial))

    def forget(self, mac: str) -> None:
        """``mac`` fell silent: when it speaks again it may be another program, and is asked anew within its budget."""
        device = self._devices.get(mac)
        if device is not None:
            device.next_at_s.clear()

    async def run(self) -> NoReturn:
        """Work for ever; to be cancelled."""
        async with asyncio.TaskGroup() as workers:
            for number in range(AT_ONCE):
                workers.create_task(self._work(), name=f"descriptions {number}")
        raise AssertionError("workers do not end")

    async def _work(self) -> NoReturn:
        while True:
            wish = await self._wishes.get()
            found = await self._describe(wish)
            metrics.descriptions.labels("failed" if found is None else "read").inc()
            if found is None:
                continue
            device = self._devices.get(wish.mac)
            if device is not None:
                self._not_before(device, wish.url, self._now_s() + REFRESH_S)
            self._tell(found)

    async def _describe(self, wish: _Wish) -> Found | None:
        answer = await self._ask(wish.url, wish)
        description = None if answer is None else parse_description(answer.body)
        if answer is None or description is None:
            return None
        app = None
        base = answer.headers.get("application-url")
        if base is not None:
            about = await self._ask(f"{base.rstrip('/')}/{APP}?clientDialVer=2.1", wish)
            app = None if about is None else parse_app(about.body)
        return Found(mac=wish.mac, description=description, app=app, from_dial=wish.from_dial)

    async def _ask(self, url: str, wish: _Wish) -> Answer | None:
        location = may_fetch(url, ip=wish.ip, mac=wish.mac, around=self._around)
        if location is None:
            return None
        answer = await self._fetch(location)
        if answer is None or answer.status != 200 or self._around.mac_of(wish.ip) != wish.mac:
            return None
        return answer

    @staticmethod
    def _not_before(device: _Device, url: str, at_s: float) -> None:
        device.next_at_s.pop(url, None)
        device.next_at_s[url] = at_s
        if len(device.next_at_s) > URLS_PER_DEVICE_MAX:
            del device.next_at_s[next(iter(device.next_at_s))]
