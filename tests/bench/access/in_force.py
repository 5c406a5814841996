"""From the operator's command to the user's first message, and from a grant's end to the last thing he is given.

Of a session that says 1,000 messages a second, among many other grants. A command is a process of its own, and its
start counts.
"""

import asyncio
import time

import msgspec

from dmpd.model.grants import Grant
from tests.bench.access.crowd import crowded
from tests.bench.access.size import Size
from tests.bench.report import Figure, figure, percentile, worst
from tests.support.access import AccessRig
from tests.support.access_flood import Flood
from tests.support.access_turns import Figures, take_turns
from tests.support.grants import S1
from tests.support.platform import BIN, until

USERS = 100
"""Of the grants beside."""
IN_FORCE = "<= 2"
OVER = "<= 1"


def measure(size: Size) -> list[Figure]:
    with crowded(size.present, users=USERS) as (rig, _):
        return asyncio.run(_measure(rig, size))


async def _measure(rig: AccessRig, size: Size) -> list[Figure]:
    commands: list[float] = []
    found = Figures([], [], [])

    async def give(user: str, lasts_s: int) -> Grant:
        began_s = time.perf_counter()
        made = await _command(rig, user, lasts_s)
        commands.append(time.perf_counter() - began_s)
        return made

    async with Flood(rig) as flood:
        began_s, sent = time.monotonic(), flood.sent
        users = [f"u-{number}" for number in range(size.watchers)]
        await asyncio.gather(*(take_turns(rig, user, found, turns=size.turns, give=give) for user in users))
        per_s = (flood.sent - sent) / (time.monotonic() - began_s)
    count = size.watchers * size.turns

    def given() -> list[float]:
        """As the audit says; the ids of those beside are shorter."""
        return [detail["after_s"] for grant, _, detail in rig.events("in force") if len(grant) == 12]

    await asyncio.to_thread(until, lambda: len(given()) >= count, "the audit has all")
    return [
        figure("flood", "1/s", [per_s], bar=">= 950"),
        figure("in_force/never_felt", "", [float(count - len(found.felt))], bar="0"),
        *_tail("in_force/command", commands, IN_FORCE),
        *_tail("in_force/rule", given(), IN_FORCE),
        *_tail("in_force/felt", found.felt, IN_FORCE),
        *_tail("over/by_time", found.timed, OVER),
        *_tail("over/revoked", found.revoked, OVER),
    ]


async def _command(rig: AccessRig, user: str, lasts_s: int) -> Grant:
    """``dmpctl access grant``, from its start to its end: it returns when the broker has the rule."""
    words = ["--rae", "R1", "--session", S1, "--command", "--for", f"{lasts_s}s", "--why", "bench", "--json"]
    process = await asyncio.create_subprocess_exec(
        *(BIN / "dmpctl", "access", "grant", user, *words, "--config", rig.daemon.config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return msgspec.json.decode(said, type=Grant)


def _tail(name: str, samples: list[float], bar: str) -> list[Figure]:
    return [
        figure(f"{name}/median", "s", samples),
        percentile(f"{name}/p99", "s", samples, 0.99, bar=bar),
        worst(f"{name}/worst", "s", samples, bar=bar),
    ]
