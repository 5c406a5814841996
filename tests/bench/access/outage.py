"""Ends while the database is down: kept by a daemon that lives, and by one that was killed -9 and started again.

On a session that says 1,000 messages a second, among many other grants.
"""

import asyncio
import time

from tests.bench.access.crowd import crowded
from tests.bench.access.size import Size
from tests.bench.report import Figure, worst
from tests.support.access import AccessRig
from tests.support.access_flood import Flood, Watcher, hears_and_commands, late_s
from tests.support.platform import until
from tests.support.services import PostgreSQLService

USERS = 100
"""Of the grants beside."""
FIRST_S, SECOND_S = 5.0, 9.0
"""How long the two grants last of which the one ends while the daemon lives, the other one while it is dead."""
BACK_TIMEOUT_S = 120.0


def measure(size: Size) -> list[Figure]:
    with crowded(size.present, users=USERS) as (rig, server):
        late = asyncio.run(_measure(rig, server, size.outages))
    alive, restarted = zip(*late, strict=True)
    return [
        worst("over/database_down", "s", alive, bar="<= 1"),
        worst("over/daemon_restarted", "s", restarted, bar="<= 3"),
    ]


async def _measure(rig: AccessRig, server: PostgreSQLService, outages: int) -> list[tuple[float, float]]:
    async with Flood(rig), Watcher(rig, "u-a") as first, Watcher(rig, "u-b") as second:
        return [await _outage(rig, server, first, second) for _ in range(outages)]


async def _outage(rig: AccessRig, server: PostgreSQLService, first: Watcher, second: Watcher) -> tuple[float, float]:
    """How late both ends were felt, seconds: the one after ``ends_at``, the other one after the daemon's start."""
    one = await asyncio.to_thread(rig.grant, first.user, level="command", s=FIRST_S)
    two = await asyncio.to_thread(rig.grant, second.user, level="command", s=SECOND_S)
    await asyncio.gather(hears_and_commands(first), hears_and_commands(second))
    await asyncio.to_thread(server.process.kill)
    assert time.time() < one.ends_at.timestamp(), "the first grant was over before the database was down"
    alive = await late_s(first, one.ends_at.timestamp())
    await asyncio.to_thread(rig.daemon.kill)
    assert time.time() < two.ends_at.timestamp(), "the second grant was over before the daemon was dead"
    await asyncio.sleep(two.ends_at.timestamp() - time.time() + 0.5)
    await hears_and_commands(second)  # nobody ends it
    started = time.time()
    rig.daemon.start()
    restarted = await late_s(second, started)
    server.process.start()  # on this thread: with the one that starts it a server ends
    await asyncio.to_thread(until, rig.daemon.is_done, "the daemon has its database again", BACK_TIMEOUT_S)
    return alive, restarted
