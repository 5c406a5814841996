"""The border to the devices where something is done to them: waking, and apps by DIAL. Its twin: ``memory_control``."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

AppStateWord = Literal["running", "stopped", "hidden", "installable"]


class DeviceControlError(Exception):
    """It was not done, or it is not known whether it was: the text says which. Nothing is tried twice."""


class Target(NamedTuple):
    """One device as the LAN knows it now."""

    ip: str | None
    macs: tuple[str, ...]


class AppState(NamedTuple):
    """What a device says of one of its apps."""

    name: str
    state: AppStateWord
    stoppable: bool


class DeviceControl(Protocol):
    """Does things to devices. On the event loop; nothing blocks; each call is bounded to some seconds."""

    async def wake(self, macs: Sequence[str]) -> None:
        """Send a magic packet for each of ``macs``. That a device woke is seen by its presence, not here."""

    async def app_state(self, target: Target, app: str) -> AppState:
        """Ask for one app. Raises DeviceControlError: also when the device does not know the app."""

    async def app_launch(self, target: Target, app: str, payload: str) -> None:
        """Launch an app, once. Raises DeviceControlError."""

    async def app_stop(self, target: Target, app: str) -> bool:
        """Stop an app, once; False if it did not run. Raises DeviceControlError."""


class NoDeviceControl:
    """A RAE without a LAN interface can do nothing to devices."""

    async def wake(self, macs: Sequence[str]) -> None:
        raise self.none()

    async def app_state(self, target: Target, app: str) -> AppState:
        raise self.none()

    async def app_launch(self, target: Target, app: str, payload: str) -> None:
        raise self.none()

    async def app_stop(self, target: Target, app: str) -> bool:
        raise self.none()

    @staticmethod
    def none() -> DeviceControlError:
        """What there is to say."""
        return DeviceControlError("this RAE has no way to its devices (lan.interface, lan.ssdp)")
