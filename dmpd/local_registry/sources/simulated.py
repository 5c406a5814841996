"""A LAN that does not exist: the in-memory twin of the real sources, and the load of tests and benchmarks.

From one seed come the same devices each time. They change attributes (mostly), go to standby, leave and come back, and
rarely swap their MAC or ESN or make room for another device, at a given rate. No timer per device, one per LAN.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Final

from dmpd.local_registry.source import Evidence, LanSignal

LEAVE_EVERY_S: Final = 1200.0
"""How long a device stays, on average."""
AWAY_MIN_S: Final = 3.0
AWAY_MAX_S: Final = 15.0
QUEUE_MAX: Final = 10_000

_MODELS: Final = (
    ("Aster", "A55-2026"),
    ("Borealis", "QX 65"),
    ("Corvid", "Stick 4K"),
    ("Dandelion", "Box Mini"),
    ("Ember", "Vision 43"),
)


class _Device:
    """One simulated device: what it would say of itself."""

    def __init__(self, number: int, serial: int, random: Random) -> None:
        self.number = number
        self.mac = self.mac_before = _mac(random)
        self.ip = f"10.{20 + (number >> 16 & 0x3F)}.{number >> 8 & 0xFF}.{number & 0xFF}"
        self.esn = _esn(random)
        self.manufacturer, self.model = random.choice(_MODELS)
        self.name = f"DUT {number:03d}-{serial}"
        self.present = True
        self.power: str = "on"
        self.attributes: dict[str, bytes] = {
            "test_state": b'"available"',
            "build": b"1",
            "firmware": b'"%d.%d.%d"' % (random.randrange(9), random.randrange(20), random.randrange(99)),
            "rack": b'"R%02d-%02d"' % (number // 40, number % 40),
            "resolution": random.choice((b'"1080p"', b'"2160p"')),
            "hdr": random.choice((b"true", b"false")),
            "app": b'{"name":"player","version":%d,"state":"stopped"}' % random.randrange(1000),
        }


class SimulatedLan:
    """A ``LanSource`` of made-up devices. One consumer of ``signals`` at a time."""

    name = "simulated"

    def __init__(
        self, *, devices: int, rate_per_s: float, seed: str, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Make the devices.

        Args:
            devices: How many are there at once.
            rate_per_s: Changes per second over all of them; 0 = they only answer probes.
            seed: Equal seeds give equal devices and equal histories.
            now_s: Monotonic clock.
        """
        self._random = Random(seed)  # noqa: S311 - a simulation wants to be repeatable
        self._rate_per_s = rate_per_s
        # By time and not by changes: under load they would all be flapping.
        self._leave_share = min(0.05, devices / (LEAVE_EVERY_S * rate_per_s)) if rate_per_s > 0 else 0.0
        self._now_s = now_s
        self._serial = 0
        self.devices = [self._new_device(number) for number in range(1, devices + 1)]
        self._queue: asyncio.Queue[Evidence] = asyncio.Queue(QUEUE_MAX)
        self._returns: list[tuple[float, int, _Device]] = []

    async def signals(self) -> AsyncIterator[LanSignal]:
        """First everything that is there, then what happens; evidence of probes in between."""
        for signal in await self.dump():
            yield signal
        next_s = self._now_s() + self._pause_s()
        while True:
            due_s = min(next_s, self._returns[0][0] if self._returns else next_s)
            try:
                async with asyncio.timeout(max(0.0, due_s - self._now_s())):
                    signal = await self._queue.get()
            except TimeoutError:
                now_s = self._now_s()
                for evidence in self.step(now_s, happens=now_s >= next_s):
                    yield evidence
                if now_s >= next_s:
                    next_s = max(next_s + self._pause_s(), now_s - 1.0)
            else:
                yield signal

    async def dump(self) -> Sequence[LanSignal]:
        """What answers now."""
        return [self._sighting(device) for device in self.devices if device.present]

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """The device at ``ip`` answers, or the neighbour feed says that it did not."""
        device = next((one for one in self.devices if one.ip == ip), None)
        if device is None or self._queue.full():
            return
        reach = Evidence(
            source=self.name, seen_at_s=self._now_s(), mac=device.mac, reach="up" if device.present else "down"
        )
        self._queue.put_nowait(reach)

    def step(self, now_s: float, *, happens: bool) -> list[Evidence]:
        """Devices come back when their time is up; if ``happens``, one thing happens to one device."""
        evidence = []
        while self._returns and self._returns[0][0] <= now_s:
            device = heapq.heappop(self._returns)[2]
            device.present, device.power = True, "on"
            evidence.append(self._sighting(device))
        here = [device for device in self.devices if device.present] if happens else []
        if here:
            evidence.append(self._happening(self._random.choice(here), now_s))
        return evidence

    def _happening(self, device: _Device, now_s: float) -> Evidence:
        if self._random.random() < self._leave_share:
            self._leave(device, now_s)
            return Evidence(source=self.name, seen_at_s=now_s, mac=device.mac_before, gone=True)
        dice = self._random.random()
        if dice < 0.65:
            busy = device.attributes["test_state"] == b'"in_test"'
            device.attributes["test_state"] = b'"available"' if busy else b'"in_test"'
            return self._facts(device, "test_state")
        if dice < 0.90:
            device.attributes["build"] = b"%d" % (int(device.attributes["build"]) + 1)
            return self._facts(device, "build")
        if dice < 0.98:
            device.power = "standby" if device.power == "on" else "on"
        else:
            device.esn = _esn(self._random)
        return self._sighting(device)

    def _leave(self, device: _Device, now_s: float) -> None:
        """It goes and comes back as it was, rarely under another MAC, or as quite another device."""
        device.present = False
        device.mac_before = device.mac
        returning = device
        dice = self._random.random()
        if dice > 0.9:
            returning = self._new_device(device.number)
            returning.present = False
            self.devices[self.devices.index(device)] = returning
        elif dice > 0.7:
            device.mac = _mac(self._random)
        away_s = AWAY_MIN_S + self._random.random() * (AWAY_MAX_S - AWAY_MIN_S)
        heapq.heappush(self._returns, (now_s + away_s, self._serial, returning))
        self._serial += 1

    def _sighting(self, device: _Device) -> Evidence:
        return Evidence(
            source=self.name,
            seen_at_s=self._now_s(),
            mac=device.mac,
            ip=device.ip,
            hostname=f"dut-{device.number}",
            port=f"swp{device.number % 48}",
            esn=device.esn,
            esn_source="simulated",
            manufacturer=device.manufacturer,
            model=device.model,
            name=device.name,
            attributes=dict(device.attributes),
            reach="up",
            power="standby" if device.power == "standby" else "on",
        )

    def _facts(self, device: _Device, name: str) -> Evidence:
        attributes = {name: device.attributes[name]}
        return Evidence(source=self.name, seen_at_s=self._now_s(), mac=device.mac, attributes=attributes, reach="up")

    def _new_device(self, number: int) -> _Device:
        self._serial += 1
        return _Device(number, self._serial, self._random)

    def _pause_s(self) -> float:
        return self._random.expovariate(self._rate_per_s) if self._rate_per_s > 0 else 3600.0


def _mac(random: Random) -> str:
    return ":".join(f"{octet:02x}" for octet in (0x02, *(random.randrange(256) for _ in range(5))))


def _esn(random: Random) -> str:
    return f"SIMTV-{random.getrandbits(64):016X}"
