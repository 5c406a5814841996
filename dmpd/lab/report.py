"""What one run of the demo measured, and what did not hold."""

import json

from msgspec import Struct, field


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

    @property
    def held(self) -> bool:
        return not self.failures

    def json_line(self) -> str:
        names = ("raes", "devices", "changes", "p50_ms", "p99_ms", "kills", "lost", "wrong", "lan_online")
        return json.dumps({name: getattr(self, name) for name in names}, separators=(",", ":"))
