"""Users of a flooded session, each granted it again and again: how soon that is felt, and how late its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

from dmpd.model.grants import Grant
from tests.support.access import AccessRig
from tests.support.access_flood import Watcher, hears_and_commands, last, quiet
from tests.support.platform import until

TIMED_S = 3
"""Of a grant that ends by time."""
REVOKED_S = 600
"""Of one that is revoked long before."""
_QUIET_S = 1.2
"""Whoever was given nothing for so long is given nothing any more."""

Give = Callable[[str, int], Awaitable[Grant]]
"""Grants a user the flooded session and its commands for so many seconds."""


class Figures(NamedTuple):
    """Of one grant after the other, seconds."""

    felt: list[float]
    """From the asking to the first message that he got."""
    timed: list[float]
    """From the end by time to the last thing that he was given."""
    revoked: list[float]
    """The same, from the revocation as its row says it, which is before its commit."""


async def take_turns(rig: AccessRig, user: str, figures: Figures, *, turns: int, give: Give) -> None:
    """Every second grant ends by time, the others are revoked. One that was never felt is in no figure."""
    async with Watcher(rig, user) as watcher:
        await asyncio.to_thread(until, lambda: watcher.party is not None, "he tries")
        for number in range(turns):
            await _turn(rig, watcher, figures, give, is_timed=number % 2 == 0)


async def _turn(rig, watcher, figures, give, *, is_timed):
    asked_at = time.time()
    made = await give(watcher.user, TIMED_S if is_timed else REVOKED_S)
    if is_timed:
        over = made.ends_at.timestamp()
        await asyncio.sleep(max(0.0, over - time.time()))
    else:
        await hears_and_commands(watcher)
        ended: datetime = (await asyncio.to_thread(rig.revoke, made.id)).over_at
        over = ended.timestamp()
    await quiet(watcher, for_s=_QUIET_S)
    if last(watcher) > asked_at:
        (figures.timed if is_timed else figures.revoked).append(last(watcher) - over)
        figures.felt.extend([at - asked_at for at in watcher.heard_at if at > asked_at][:1])
