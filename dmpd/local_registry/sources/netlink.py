"""The kernel's rtnetlink feed through pyroute2, translated into ``kernel_events``. The only file that knows pyroute2.

Needs no privilege. Runs on asyncio's own event loop; on uvloop pyroute2 cannot open its socket.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from dmpd.local_registry.sources.clean import clean_ip, clean_mac, clean_text
from dmpd.local_registry.sources.kernel_events import (
    Forwarding,
    ForwardingGone,
    KernelEvent,
    LinkGone,
    LinkState,
    Neighbour,
    NeighbourGone,
    NeighbourState,
)

RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""What is asked for; without CAP_NET_ADMIN the kernel gives at most ``net.core.rmem_max``."""
BACKLOG_MAX: Final = 4096
"""Chunks read from the kernel and not yet looked at; beyond, a dump is cheaper than to catch up."""
DUMP_TIMEOUT_S: Final = 10.0

_AF_BRIDGE: Final = 7
_IFF_UP: Final = 0x1
_IFF_LOWER_UP: Final = 0x10000
_TICKS_PER_S: Final = 100
"""USER_HZ, the unit of ages in ``nda_cacheinfo``."""
_STATES: Final[dict[int, NeighbourState]] = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
}
_NUD_PERMANENT: Final = 0x80


class FeedLostError(Exception):
    """The feed is of no use any more: open a new one and dump. ``overflow`` = events were lost, as happens."""

    def __init__(self, sentence: str, *, overflow: bool) -> None:
        super().__init__(sentence, overflow)
        self.sentence = sentence
        self.overflow = overflow


class Feed:
    """An open subscription to links, neighbours and forwarding entries. Use ``open_feed``."""

    def __init__(self, route: AsyncIPRoute) -> None:
        self._route = route

    async def dump(self) -> list[KernelEvent]:
        """All links, neighbours and forwarding entries now. Events that follow may tell what the dump already says.

        Raises:
            FeedLostError: The kernel's answer was lost, or did not come within 10 s.
        """
        try:
            async with asyncio.timeout(DUMP_TIMEOUT_S):
                messages = [message async for message in await self._route.link("dump")]
                for family in (socket.AF_INET, socket.AF_INET6, _AF_BRIDGE):
                    messages += [message async for message in await self._route.neigh("dump", family=family)]
        except (OSError, NetlinkError) as error:
            raise _lost(error) from error
        return [event for event in map(event_of, messages) if event is not None]

    async def events(self, *, timeout_s: float) -> list[KernelEvent]:
        """What happened since the last call, oldest first; waits up to ``timeout_s`` for something to happen.

        Raises:
            FeedLostError: Events were lost, or the socket broke.
        """
        found: list[KernelEvent] = []
        try:
            async with asyncio.timeout(timeout_s):
                async for message in self._route.get():
                    event = event_of(message)
                    if event is not None:
                        found.append(event)
        except TimeoutError:
            return found
        except (OSError, NetlinkError) as error:
            raise _lost(error) from error
        if self._route.msg_queue.root.qsize() > BACKLOG_MAX:
            raise FeedLostError("more events than can be looked at", overflow=True)
        return found


@asynccontextmanager
async def open_feed(*, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> AsyncIterator[Feed]:
    """Subscribe in the network namespace of this process; nothing is lost between this and a ``dump`` after it.

    Raises:
        FeedLostError: There is no such socket to be had.
    """
    route = AsyncIPRoute(rcvbuf=receive_buffer_bytes)
    try:
        try:
            await route.bind(groups=rtnl.RTMGRP_NEIGH | rtnl.RTMGRP_LINK)
        except (OSError, NetlinkError, KeyError) as error:  # KeyError is how pyroute2 says that no port is free
            raise _lost(error) from error
        yield Feed(route)
    finally:
        route.close()


def _lost(error: BaseException) -> FeedLostError:
    code = getattr(error, "errno", None) or getattr(error, "code", None)
    sentence = "no answer from the kernel" if isinstance(error, TimeoutError) else str(error)
    return FeedLostError(sentence, overflow=code == errno.ENOBUFS)


def event_of(message: Any) -> KernelEvent | None:
    """Translate one message of pyroute2; None for what says nothing of a device."""
    kind = message["event"]
    if kind in ("RTM_NEWLINK", "RTM_DELLINK"):
        return _link(message, gone=kind == "RTM_DELLINK")
    if kind not in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
        return None
    gone = kind == "RTM_DELNEIGH"
    if message["family"] == _AF_BRIDGE:
        return _forwarding(message, gone=gone)
    return _neighbour(message, gone=gone)


def _link(message: Any, *, gone: bool) -> KernelEvent | None:
    if message["family"] == _AF_BRIDGE:
        return None  # the bridge's view of a port; its DELLINK means that the port left the bridge, not that it is gone
    if gone:
        return LinkGone(message["index"])
    name = clean_text(message.get_attr("IFLA_IFNAME") or "", length_max=64)
    if name is None:
        return None
    return LinkState(
        index=message["index"],
        name=name,
        master=message.get_attr("IFLA_MASTER"),
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message["flags"] & _IFF_LOWER_UP),
    )


def _neighbour(message: Any, *, gone: bool) -> KernelEvent | None:
    ip = clean_ip(message.get_attr("NDA_DST") or "")
    if ip is None:
        return None
    if gone:
        return NeighbourGone(link=message["ifindex"], ip=ip)
    state = _STATES.get(message["state"])
    lladdr = message.get_attr("NDA_LLADDR")
    mac = clean_mac(lladdr or "")
    if state is None or (lladdr and mac is None):
        return None
    return Neighbour(link=message["ifindex"], ip=ip, mac=mac, state=state)


def _forwarding(message: Any, *, gone: bool) -> KernelEvent | None:
    mac, bridge = clean_mac(message.get_attr("NDA_LLADDR") or ""), message.get_attr("NDA_MASTER")
    if mac is None or bridge is None or message["state"] & _NUD_PERMANENT:  # permanent: the bridge's own MACs
        return None
    if gone:
        return ForwardingGone(bridge=bridge, port=message["ifindex"], mac=mac)
    ages = message.get_attr("NDA_CACHEINFO") or {}
    age_s = ages.get("ndm_updated", 0) / _TICKS_PER_S
    return Forwarding(bridge=bridge, port=message["ifindex"], mac=mac, age_s=age_s)
