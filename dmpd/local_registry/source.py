"""The border between the LAN and the Local Registry: what a source delivers, and nothing of how.

A ``LanSource`` is an async iterator of evidence plus ``dump()`` (everything it knows now) and ``poke()`` (provoke a
sign of life). Everything that comes through here is hostile: sources cap and clean what they hand on.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct

Reach = Literal["up", "down", "unsure"]
"""What a piece of evidence says of the device's link.

``up`` = it answered or sent just now; ``down`` = it was asked and did not answer (a kernel's FAILED), or its port lost
carrier; ``unsure`` = no answer yet. ``None`` = this evidence says nothing of the link (a lease read from a file).
Silence is no proof: a device goes offline by ``down`` or ``gone`` alone, so a source that can ask must say ``down``.
"""


class Evidence(Struct, frozen=True, kw_only=True):
    """One sighting: what one source says of one device at one moment. Absent = this source does not know.

    ``attributes`` are free facts (JSON text by name). ``seen_at_s`` is monotonic time in seconds. Evidence without a
    ``mac`` is matched by its ``ip`` to the device last seen there, and dropped if there is none.
    """

    source: str
    seen_at_s: float
    mac: str | None = None
    ip: str | None = None
    hostname: str | None = None
    client_id: str | None = None
    vendor_class: str | None = None
    port: str | None = None
    esn: str | None = None
    esn_source: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    name: str | None = None
    attributes: dict[str, bytes] = {}
    reach: Reach | None = None
    power: Literal["on", "standby", "asleep"] | None = None
    arrived: bool = False
    """It got its address just now (a DHCP ACK): worth asking at once what it is."""
    gone: bool = False
    """The source knows that it left the LAN (lease given back, cable pulled): offline at once, without a grace."""


class LanDown(Struct, frozen=True):
    """The LAN itself went down: presence is not judged until ``LanUp``."""

    source: str


class LanUp(Struct, frozen=True):
    source: str


LanSignal = Evidence | LanDown | LanUp


class LanSource(Protocol):
    """One way to observe the LAN. Opened and iterated on the event loop; nothing of it blocks."""

    @property
    def name(self) -> str:
        """For logs, metrics and the ``cause`` of changes."""

    def signals(self) -> AsyncIterator[LanSignal]:
        """Yield what happens, for ever; begins with what ``dump`` returns. Heals itself from trouble."""

    async def dump(self) -> Sequence[LanSignal]:
        """Everything the source knows now, for a resync."""

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """Provoke a sign of life of one device; the answer, or its lack, comes through ``signals``."""
