"""Rules made from nothing: of a broker that was restarted empty, and of many grants that come at once.

Beside it a RAE publishes all the time, and what it waits for each PUBACK is what others feel of it.
"""

import asyncio
import time

from tests.bench.access.crowd import SETTLE_TIMEOUT_S, crowded
from tests.bench.access.size import Size
from tests.bench.report import Figure, figure, percentile, worst
from tests.support.access import AccessRig, own_rig
from tests.support.access_flood import publishing
from tests.support.platform import until

PER_USER = 10
"""Grants of one user, where many come at once."""


def measure_empty(size: Size) -> list[Figure]:
    """As many users as grants: nothing can be done for several at one go."""
    took_s: list[float] = []
    waited_s: list[float] = []
    with crowded(size.present, users=size.present) as (rig, _):
        for turn in range(size.empty):
            before_s = time.monotonic()
            rig.empty_broker()
            waited_s += asyncio.run(_filled(rig, in_all=(2 + turn) * size.present))
            took_s.append(time.monotonic() - before_s)
    return [
        worst("empty_broker/rules_back", "s", took_s, bar="<= 10"),
        worst("empty_broker/puback_worst", "ms", [one * 1e3 for one in waited_s], bar="<= 250"),
    ]


async def _filled(rig: AccessRig, *, in_all: int) -> list[float]:
    """Until the audit says so often that a grant is in force."""
    async with publishing(rig) as waited_s:
        await asyncio.to_thread(
            until, lambda: len(rig.events("in force")) >= in_all, "all rules again", SETTLE_TIMEOUT_S
        )
    return waited_s


def measure_many(size: Size) -> list[Figure]:
    with own_rig() as (rig, _):
        took_s, waited_s = asyncio.run(_many(rig, size.many))
    waited_ms = [one * 1e3 for one in waited_s]
    return [
        worst("many/reconciled", "s", [took_s], bar="<= 60"),
        figure("many/puback_median", "ms", waited_ms),
        percentile("many/puback_p99", "ms", waited_ms, 0.99, bar="<= 50"),
        worst("many/puback_worst", "ms", waited_ms, bar="<= 250"),
    ]


async def _many(rig: AccessRig, count: int) -> tuple[float, list[float]]:
    async with publishing(rig) as waited_s:
        await asyncio.to_thread(rig.fill, count, count // PER_USER)
        began_s = time.monotonic()
        await asyncio.to_thread(until, lambda: rig.daemon.is_done(rules=count), "all rules", SETTLE_TIMEOUT_S)
        return time.monotonic() - began_s, waited_s
