"""Apps of devices by DIAL: asked for, launched, stopped, each exactly once and only where ``describer`` would ask, too.

A device's description names where its apps are (``Application-URL``). Every URL on the way goes through ``may_fetch``:
the device's own address, on the LAN, with the MAC that the kernel has for it. Source: DIAL 2.2.1 §5.4, §6.
"""

import asyncio
import re
from collections.abc import Awaitable
from typing import Final, NamedTuple, Protocol

from dmpd.local_registry.device_control import AppState, DeviceControlError, Target
from dmpd.local_registry.sources.describer import Surroundings, may_fetch
from dmpd.local_registry.sources.dial_description import parse_app, parse_instance
from dmpd.local_registry.sources.http_answer import Answer, Location

LOCATE_S: Final = 3.0
"""How long a device is asked where its DIAL service is, if it has not said so yet."""
_LOOK_S: Final = 0.05
_INSTANCE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Locator(Surroundings, Protocol):
    """What SSDP knows of DIAL services."""

    def dial_location(self, mac: str) -> str | None:
        """Where the description of this device's DIAL service is, as it said last."""

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """Ask the device for its services."""


class Exchange(Protocol):
    def __call__(self, location: Location, *, method: str = "GET", body: bytes = b"") -> Awaitable[Answer | None]:
        """One HTTP question; None = no whole answer."""


class _Place(NamedTuple):
    ip: str
    mac: str
    base: str
    """The Application-URL, without a slash at its end."""


class Dial:
    """DIAL over ``exchange``. Keeps nothing. Each method takes at most some 15 s."""

    def __init__(self, locator: Locator, exchange: Exchange) -> None:
        self._locator = locator
        self._exchange = exchange

    async def state(self, target: Target, app: str) -> AppState:
        """Raises DeviceControlError."""
        return (await self._ask(await self._place(target), app))[0]

    async def launch(self, target: Target, app: str, payload: str) -> None:
        """Raises DeviceControlError."""
        place = await self._place(target)
        answer = await self._exchange(self._url(place, f"/{app}"), method="POST", body=payload.encode())
        if answer is None:
            raise DeviceControlError(f"no answer: it is not known whether {app} was launched")
        if answer.status not in (200, 201):
            raise DeviceControlError(_refusal(app, answer.status))

    async def stop(self, target: Target, app: str) -> bool:
        """Whether it ran. Raises DeviceControlError."""
        place = await self._place(target)
        state, body = await self._ask(place, app)
        if state.state not in ("running", "hidden"):
            return False
        instance = parse_instance(body)
        if instance is None or not _INSTANCE.fullmatch(instance):
            raise DeviceControlError(f"the device does not say how {app} is stopped")
        answer = await self._exchange(self._url(place, f"/{app}/{instance}"), method="DELETE")
        if answer is None:
            raise DeviceControlError(f"no answer: it is not known whether {app} was stopped")
        if answer.status == 404:  # it ended by itself meanwhile
            return False
        if answer.status != 200:
            raise DeviceControlError(_refusal(app, answer.status))
        return True

    async def _ask(self, place: _Place, app: str) -> tuple[AppState, bytes]:
        answer = await self._exchange(self._url(place, f"/{app}?clientDialVer=2.1"))
        if answer is None:
            raise DeviceControlError("the device's DIAL service does not answer")
        found = parse_app(answer.body) if answer.status == 200 else None
        if found is None:
            raise DeviceControlError(_refusal(app, answer.status))
        return AppState(found.name, found.state, found.stoppable), answer.body

    async def _place(self, target: Target) -> _Place:
        ip = target.ip
        mac = None if ip is None else self._locator.mac_of(ip)
        if ip is None or mac is None or mac not in target.macs:
            raise DeviceControlError("the device is not on the LAN now")
        location = may_fetch(await self._locate(ip, mac), ip=ip, mac=mac, around=self._locator)
        answer = None if location is None else await self._exchange(location)
        if answer is None or answer.status != 200:
            raise DeviceControlError("the device's DIAL service does not answer")
        base = answer.headers.get("application-url")
        if base is None:
            raise DeviceControlError("the device does not say where its apps are (Application-URL)")
        return _Place(ip, mac, base.rstrip("/"))

    async def _locate(self, ip: str, mac: str) -> str:
        """The description's URL; a device that did not tell it yet is asked."""
        deadline_s = asyncio.get_running_loop().time() + LOCATE_S
        found = self._locator.dial_location(mac)
        if found is None:
            await self._locator.poke(ip=ip, mac=mac)
        while found is None:
            if asyncio.get_running_loop().time() > deadline_s:
                raise DeviceControlError("the device announces no DIAL service")
            await asyncio.sleep(_LOOK_S)
            found = self._locator.dial_location(mac)
        return found

    def _url(self, place: _Place, path: str) -> Location:
        location = may_fetch(place.base + path, ip=place.ip, mac=place.mac, around=self._locator)
        if location is None:
            raise DeviceControlError("the device says that its apps are at another address, or it has left")
        return location


def _refusal(app: str, status: int) -> str:
    known = {404: f"the device has no app {app}", 413: "the payload is too large for the device", 501: "not supported"}
    return known.get(status, f"the device answered {status}")
