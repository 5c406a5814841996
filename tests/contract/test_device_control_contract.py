"""What the verbs need of the way to devices: the twin, and DIAL against a DUT of the lab, pass the same tests."""

import asyncio
import ipaddress

import pytest

from dmpd.lab.duts.device import HTTP_PORT, new_device
from dmpd.local_registry.device_control import AppState, DeviceControl, DeviceControlError, NoDeviceControl, Target
from dmpd.local_registry.memory_control import MemoryControl
from dmpd.local_registry.sources.dial import Dial
from dmpd.local_registry.sources.http_answer import Answer, Location, parse_answer
from dmpd.local_registry.sources.lan_addresses import LanAddresses
from dmpd.local_registry.sources.lan_control import LanControl

IP, MAC = "10.77.1.1", "02:00:00:77:00:01"
HERE = Target(IP, (MAC,))
GONE = Target(None, (MAC,))


class Twin:
    """Counts by itself."""

    def __init__(self) -> None:
        self.control: DeviceControl = MemoryControl()

    def counted(self) -> tuple[int, int]:
        done = self.control.done  # type: ignore[attr-defined]
        return done[MAC, "launch Netflix"], done[MAC, "stop Netflix"]


class Dut:
    """The lab's device, asked over no network; it knows itself what was done to it."""

    addresses = LanAddresses(networks=(ipaddress.IPv4Network("10.77.0.0/22"),), own=frozenset({"10.77.0.1"}))

    def __init__(self) -> None:
        self._device = new_device(1, MAC)
        self.control: DeviceControl = LanControl("none", Dial(self, self._exchange))

    def counted(self) -> tuple[int, int]:
        app = self._device.apps["Netflix"]
        return app.launches, app.stops

    def mac_of(self, ip: str) -> str | None:
        return MAC if ip == IP else None

    def dial_location(self, mac: str) -> str | None:
        return f"http://{IP}:{HTTP_PORT}/dd.xml"

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """It has told where its services are already."""

    async def _exchange(self, location: Location, *, method: str = "GET", body: bytes = b"") -> Answer | None:
        assert location.ip == IP
        answer = self._device.page(method, location.path, IP, body)
        return parse_answer(answer.encode(), body_bytes_max=65_536)


@pytest.fixture(params=[Twin, Dut])
def bench(request):
    return request.param()


def test_an_app_runs_from_its_launch_to_its_stop_and_each_counts_once(bench):
    async def test() -> None:
        control = bench.control
        assert await control.app_state(HERE, "Netflix") == AppState("Netflix", "stopped", stoppable=True)
        await control.app_launch(HERE, "Netflix", "payload")
        assert (await control.app_state(HERE, "Netflix")).state == "running"
        assert (await control.app_state(HERE, "YouTube")).state == "stopped"
        assert await control.app_stop(HERE, "Netflix") is True
        assert await control.app_stop(HERE, "Netflix") is False
        assert (await control.app_state(HERE, "Netflix")).state == "stopped"

    asyncio.run(test())
    assert bench.counted() == (1, 1)


@pytest.mark.parametrize(
    ("target", "app", "said"), [(HERE, "Nope", "no app Nope"), (GONE, "Netflix", "not on the LAN")]
)
def test_what_cannot_be_done_says_why_and_is_not_counted(bench, target, app, said):
    control = bench.control
    for action in (
        lambda: control.app_state(target, app),
        lambda: control.app_launch(target, app, ""),
        lambda: control.app_stop(target, app),
    ):
        with pytest.raises(DeviceControlError, match=said):
            asyncio.run(action())
    assert bench.counted() == (0, 0)


def test_without_a_way_to_devices_everything_says_so():
    control = NoDeviceControl()
    for action in (
        control.wake([MAC]),
        control.app_state(HERE, "Netflix"),
        control.app_launch(HERE, "Netflix", ""),
        control.app_stop(HERE, "Netflix"),
        LanControl("none", None).app_stop(HERE, "Netflix"),
    ):
        with pytest.raises(DeviceControlError, match="no way to its devices"):
            asyncio.run(action)


def test_a_magic_packet_that_cannot_be_sent_is_said():
    with pytest.raises(DeviceControlError, match="was not sent"):
        asyncio.run(LanControl("no-such-if", None).wake([MAC]))
