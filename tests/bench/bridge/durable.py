"""What telling RAEs which rows are durable costs the bridge: the same load with and without outbox rows, in turns."""

import time

from tests.bench.bridge import load
from tests.bench.bridge.publishers import row
from tests.bench.bridge.servers import Platform, wait_for
from tests.bench.bridge.size import Size
from tests.bench.report import Figure, figure

_RATE_PER_S = 1_000
_ROWS_EACH = 10
"""One message of so many is an outbox row: 100 of 1,000 in a second."""
_SETTLE_S = 3.0
_TIMEOUT_S = 60.0


def measure(platform: Platform, size: Size) -> list[Figure]:
    cpu_s: dict[bool, list[float]] = {True: [], False: []}
    with platform.bridge(platform.topics()) as bridge:
        wait_for(lambda: bridge.metric("dmpd_bridge_connected") == 1, "the bridge is connected", _TIMEOUT_S)
        with load.running(platform, raes=size.durable_raes, rate_per_s=_RATE_PER_S, payload=_plain) as running:
            for window in range(2 * size.durable_windows):
                with_rows = window % 4 in (1, 2)  # ABBA: a drift of the machine costs both the same
                running.payload = _with_rows if with_rows else _plain
                time.sleep(_SETTLE_S)
                told = bridge.metric("dmpd_bridge_durable_ranges_total")
                before_s = bridge.cpu_s()
                time.sleep(size.durable_s)
                cpu_s[with_rows].append((bridge.cpu_s() - before_s) / size.durable_s)
                what = "with" if with_rows else "without"
                print(f"window {window}, {what} rows: {cpu_s[with_rows][-1]:.3f} cores", flush=True)
                if (bridge.metric("dmpd_bridge_durable_ranges_total") > told) is not with_rows:
                    raise RuntimeError("rows were told in the wrong windows")
    shares = [(one - other) / one for one, other in zip(cpu_s[True], cpu_s[False], strict=True)]
    return [
        figure("durable_cpu", "of the bridge's CPU", shares, bar="<= 0.10"),
        figure("durable_cpu/with", "cores", cpu_s[True], reference=cpu_s[False]),
    ]


def _plain(rae: str, number: int) -> bytes:
    return row(rae, None, kind="checkpoint")


def _with_rows(rae: str, number: int) -> bytes:
    return row(rae, number + 1) if number % _ROWS_EACH == 0 else _plain(rae, number)
