"""The ``DeviceControl`` of a real LAN: magic packets and DIAL, by the LAN interface alone. Needs no privilege."""

import socket
from collections.abc import Sequence
from typing import Final

from dmpd.local_registry.device_control import AppState, DeviceControlError, NoDeviceControl, Target
from dmpd.local_registry.sources.dial import Dial

WAKE_PORT: Final = 9
PACKETS: Final = 3
"""Datagrams get lost, and a device that is awake already takes no notice."""


class LanControl:
    """Satisfies ``device_control.DeviceControl``; without ``dial`` (SSDP is off) there are no apps."""

    def __init__(self, interface: str, dial: Dial | None) -> None:
        self._interface = interface
        self._dial = dial

    async def wake(self, macs: Sequence[str]) -> None:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                for mac in macs:
                    for _ in range(PACKETS):
                        sock.sendto(magic_packet(mac), ("255.255.255.255", WAKE_PORT))
        except OSError as error:
            raise DeviceControlError(f"the magic packet was not sent: {error}") from error

    async def app_state(self, target: Target, app: str) -> AppState:
        return await self._apps().state(target, app)

    async def app_launch(self, target: Target, app: str, payload: str) -> None:
        await self._apps().launch(target, app, payload)

    async def app_stop(self, target: Target, app: str) -> bool:
        return await self._apps().stop(target, app)

    def _apps(self) -> Dial:
        if self._dial is None:
            raise NoDeviceControl.none()
        return self._dial


def magic_packet(mac: str) -> bytes:
    """Six 0xFF and the MAC sixteen times."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16
