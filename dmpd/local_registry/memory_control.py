"""The in-memory twin of ``LanControl``: devices that exist nowhere, and a count of what was done to each."""

from collections import Counter
from collections.abc import Collection, Sequence

from dmpd.local_registry.device_control import AppState, DeviceControlError, Target

APPS = frozenset({"Netflix", "YouTube", "player"})


class MemoryControl:
    """Every device with a MAC has the same apps, stopped at first. ``done`` counts by (MAC, what)."""

    def __init__(self, apps: Collection[str] = APPS) -> None:
        self._apps = apps
        self._running: set[tuple[str, str]] = set()
        self.done: Counter[tuple[str, str]] = Counter()

    async def wake(self, macs: Sequence[str]) -> None:
        for mac in macs:
            self.done[mac, "wake"] += 1

    async def app_state(self, target: Target, app: str) -> AppState:
        mac = self._mac(target, app)
        return AppState(app, "running" if (mac, app) in self._running else "stopped", stoppable=True)

    async def app_launch(self, target: Target, app: str, payload: str) -> None:
        mac = self._mac(target, app)
        self._running.add((mac, app))
        self.done[mac, f"launch {app}"] += 1

    async def app_stop(self, target: Target, app: str) -> bool:
        mac = self._mac(target, app)
        ran = (mac, app) in self._running
        self._running.discard((mac, app))
        self.done[mac, f"stop {app}"] += ran
        return ran

    def _mac(self, target: Target, app: str) -> str:
        if not target.macs or target.ip is None:
            raise DeviceControlError("the device is not on the LAN now")
        if app not in self._apps:
            raise DeviceControlError(f"the device has no app {app}")
        return target.macs[0]
