"""The demo's acts on the LAN: devices join, a cable is pulled, a MAC and an ESN change, one sleeps and wakes."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dmpd.lab.lan import Dut, LanLab
from dmpd.lab.lan_tools import LanLabError
from dmpd.lab.observation import LanDevice, percentile
from dmpd.lab.patience import Patience

_LAN_S: Final = 60.0
DHCP_TO_ROW_MAX_S: Final = 2.0
OFFLINE_MAX_S: Final = 20.0
BACK_MAX_S: Final = 3.0
APP: Final = "Netflix"
_JOIN_POLL_S: Final = 0.02
"""Rows are looked at so often while devices join, because what they say first is what counts."""


class LanDemo:
    """Acts on one LAN that is up.

    Args:
        lan: Its cables.
        ask: Does something to a DUT and returns what it is then (``duts.control.ask`` without the path).
        devices: What the database says of the LAN's devices. Raises ``OSError``: no answer.
        request: Asks for something of a device session and returns the outcome. Raises ``OSError``: no answer.
        patience: Waits, and keeps the report.
    """

    def __init__(
        self,
        lan: LanLab,
        *,
        ask: Callable[[str, str | None], Mapping[str, Any]],
        devices: Callable[[], Sequence[LanDevice]],
        request: Callable[..., str],
        patience: Patience,
    ) -> None:
        self._lan = lan
        self._ask = ask
        self._devices = devices
        self._request = request
        self._patience = patience
        self._report = patience.report
        self._count = len(lan.duts())

    def join(self) -> None:
        """All devices were just switched on: wait for their rows, and compare with when their leases came."""
        first_rows: dict[str, float] = {}

        def all_have_rows() -> bool:
            for name, one in self.now().items():
                first_rows.setdefault(name, one.applied_at_s)
            return len(first_rows) == self._count

        self._patience.until(f"rows of {self._count} devices of the LAN", all_have_rows, _LAN_S, poll_s=_JOIN_POLL_S)
        try:
            told = self._ask("list", None)
        except LanLabError as error:
            self._report.failures.append(str(error))
            return
        leased_at_s = {dut.hostname: told[dut.name]["leased_at"] for dut in self._lan.duts()}
        took_s = [row_s - leased_at_s[name] for name, row_s in first_rows.items() if leased_at_s.get(name)]
        high_s = percentile(took_s, 0.99)
        if high_s is not None:
            self._report.dhcp_to_row_p99_s = round(high_s, 3)
            self._patience.say(f"DHCP ACK → row: p99 {high_s * 1000:.0f} ms, {len(took_s)} devices")
            self._patience.judge("DHCP ACK → row, p99", high_s, DHCP_TO_ROW_MAX_S, "s")

    def all_online(self) -> None:
        """Every device is online under an ESN; how many are goes to the report."""
        self._patience.until(f"{self._count} devices of the LAN online", lambda: self._online() == self._count, _LAN_S)
        self._report.lan_online = self._online()

    def cable(self) -> None:
        dut = self._pick(0)
        self._lan.unplug(dut.name)
        self._report.offline_s = self._until(f"{dut.name} unplugged is offline", dut, state="offline")
        self._lan.plug(dut.name)
        self._report.back_s = self._until(f"{dut.name} plugged in is online", dut, state="online")
        self._patience.judge("unplugged → offline", self._report.offline_s, OFFLINE_MAX_S, "s")
        self._patience.judge("plugged in → online", self._report.back_s, BACK_MAX_S, "s")

    def swaps(self) -> None:
        """Another MAC, and another ESN: the same device session each time."""
        dut = self._pick(1)
        before = self.now().get(dut.hostname)
        mac = self._do("swap-mac", dut).get("mac")
        session = before.session if before is not None else ""
        self._until(f"{dut.name} with another MAC is the same device", dut, state="online", mac=mac, session=session)
        dut = self._pick(2)
        before = self.now().get(dut.hostname)
        esn = self._do("swap-esn", dut).get("esn")
        session = before.session if before is not None else ""
        self._until(f"{dut.name} with another ESN is the same device", dut, state="online", esn=esn, session=session)

    def sleep(self) -> None:
        """One that tells how to wake it sleeps; one that does not is in standby; both wake."""
        for place, state in ((3, "asleep"), (4, "standby")):
            dut = self._pick(place)
            self._do("sleep", dut)
            self._until(f"{dut.name} switched off is {state}", dut, state=state)
            self._do("wake", dut)
            self._until(f"{dut.name} woken is online", dut, state="online")

    def requests(self) -> None:
        """Launch an app on a device and stop it, through Kafka, bridge, broker and RAE; the device counts."""
        dut = self._pick(5)
        found = self.now().get(dut.hostname)
        if found is None:
            self._report.failures.append(f"no row of {dut.name}: nothing can be asked of it")
            return
        before = self._app_of(dut)
        for verb in ("app.launch", "app.stop"):
            started_s = time.monotonic()
            try:
                outcome = self._request(found.session, verb, app=APP)
            except OSError as error:
                self._report.failures.append(f"{verb} {dut.name}: {error}")
                continue
            took_s = time.monotonic() - started_s
            self._report.requests[outcome] = self._report.requests.get(outcome, 0) + 1
            self._report.timings.append((f"{verb} {APP} on {dut.name}", took_s))
            self._patience.say(f"{verb} {APP} on {dut.name}: {outcome} in {took_s * 1000:.0f} ms")
        after = self._app_of(dut)
        counted = {what: after.get(what, 0) - before.get(what, 0) for what in ("launches", "stops")}
        if self._report.requests["done"] != 2 or counted != {"launches": 1, "stops": 1}:
            self._report.failures.append(f"requests {self._report.requests}, the device counted {counted}")

    def _app_of(self, dut: Dut) -> Mapping[str, int]:
        try:
            app: Mapping[str, int] = self._ask("list", None)[dut.name]["apps"][APP]
        except LanLabError as error:
            self._report.failures.append(str(error))
            return {}
        return app

    def count_sessions(self) -> None:
        """As many device sessions as devices: nothing was onboarded twice."""
        found = self._ask_devices()
        self._report.sessions = len(found)
        if len(found) != self._count:
            self._report.failures.append(f"{len(found)} device sessions of {self._count} devices on the LAN")

    def now(self) -> Mapping[str, LanDevice]:
        """What the database says, by host name; nothing while it does not answer."""
        return {one.hostname: one for one in self._ask_devices()}

    def _ask_devices(self) -> Sequence[LanDevice]:
        try:
            return self._devices()
        except OSError:
            return []

    def _online(self) -> int:
        return sum(one.state == "online" and one.esn is not None for one in self._ask_devices())

    def _pick(self, place: int) -> Dut:
        return self._lan.duts()[place % self._count]

    def _do(self, command: str, dut: Dut) -> Mapping[str, Any]:
        try:
            return self._ask(command, dut.name)
        except LanLabError as error:
            self._report.failures.append(f"{command} {dut.name}: {error}")
            return {}

    def _until(self, what: str, dut: Dut, **expected: object) -> float | None:
        def holds() -> bool:
            found = self.now().get(dut.hostname)
            return found is not None and all(getattr(found, name) == value for name, value in expected.items())

        took_s = self._patience.until(what, holds, _LAN_S)
        return None if took_s is None else round(took_s, 2)
