"""What the kernel tells of links, neighbours and the bridge's forwarding table, in our own words. Data only."""

from typing import Literal

from msgspec import Struct

NeighbourState = Literal["incomplete", "reachable", "stale", "delay", "probe", "failed"]
"""States of RFC 4861 that say something of a device; fixed entries (NOARP, PERMANENT) never come here."""


class LinkState(Struct, frozen=True, kw_only=True):
    """A network interface is there; ``master`` is the bridge that it is a port of."""

    index: int
    name: str
    master: int | None = None
    up: bool = True
    carrier: bool = True


class LinkGone(Struct, frozen=True):
    index: int


class Neighbour(Struct, frozen=True, kw_only=True):
    """An address on ``link``. The kernel leaves ``mac`` out where it does not know it, and in ``failed``."""

    link: int
    ip: str
    mac: str | None
    state: NeighbourState


class NeighbourGone(Struct, frozen=True, kw_only=True):
    """The kernel forgot an address. That says nothing of the device: it also forgets what is merely old."""

    link: int
    ip: str


class Forwarding(Struct, frozen=True, kw_only=True):
    """``bridge`` saw a frame from ``mac`` at ``port``, ``age_s`` ago."""

    bridge: int
    port: int
    mac: str
    age_s: float = 0.0


class ForwardingGone(Struct, frozen=True, kw_only=True):
    """``bridge`` forgot where ``mac`` is: no frame for minutes, or the port lost carrier."""

    bridge: int
    port: int
    mac: str


KernelEvent = LinkState | LinkGone | Neighbour | NeighbourGone | Forwarding | ForwardingGone
