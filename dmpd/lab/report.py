"""What one run of the demo measured, and what did not hold."""

import json
from typing import Final

from msgspec import Struct, field

_JSON_NAMES: Final = (
    *("raes", "devices", "changes", "p50_ms", "p99_ms", "kills", "lost", "wrong"),
    *("lan_online", "dhcp_to_row_p99_s", "offline_s", "back_s", "sessions", "requests"),
)


class Report(Struct):
    """Timings in the order they were taken, what did not hold, and the numbers of the JSON line."""

    timings: list[tuple[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    raes: int = 0
    devices: int = 0
    changes: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    kills: int = 0
    lost: int = 0
    wrong: int = 0
    lan_online: int = 0
    dhcp_to_row_p99_s: float | None = None
    """From the DHCP server's acknowledgement, as the device hears it, to the device's row."""
    offline_s: float | None = None
    """From a cable pulled to the row that says offline."""
    back_s: float | None = None
    """From the cable put back to the row that says online."""
    sessions: int = 0
    """Device sessions of the LAN in the end: as many as devices, whatever was swapped."""
    requests: dict[str, int] = field(default_factory=lambda: {"done": 0})
    """Requests through Kafka to a device of the LAN, by outcome."""

    @property
    def held(self) -> bool:
        return not self.failures

    def json_line(self) -> str:
        return json.dumps({name: getattr(self, name) for name in _JSON_NAMES}, separators=(",", ":"))
