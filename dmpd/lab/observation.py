"""One look at the whole platform, and the rule that says what is lost. Pure."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class NewestChange(Struct, frozen=True):
    """A change for people: when it was made (RFC 3339), where, and what it says."""

    at: str
    rae: str
    session: str
    what: str


class EdgeTotals(Struct, frozen=True):
    """Sum over the RAEs, from their control sockets."""

    committed: int = 0
    """Changes committed in their stores, since ever."""
    outbox_rows: int = 0
    connected: int = 0
    raes: int = 0


class DatabaseTotals(Struct, frozen=True):
    rows: int = 0
    revs: int = 0
    """Sum of the stored revs: what arrived, whether row by row or folded."""
    by_state: dict[str, int] = {}
    stale: int = 0


class LanDevice(Struct, frozen=True, kw_only=True):
    """An open device session of the LAN's RAE as the database has it."""

    session: str
    hostname: str
    state: str
    ip: str | None = None
    mac: str | None = None
    vendor: str | None = None
    """Who made its network card; who made the device, if it says so."""
    esn: str | None = None
    applied_at_s: float = 0.0
    """When its row was written last, seconds since 1970."""


class DatabaseView(Protocol):
    """What the lab asks of the database; the command wires it to the Cloud Registry's queries."""

    def totals(self) -> DatabaseTotals:
        """Rows, revs and states now. Blocks for a query; raises ``OSError`` when the database does not answer."""

    def delays_ms(self) -> Sequence[float]:
        """Change → row of every row written since the last call, milliseconds. Blocks and raises like ``totals``."""

    def lan_devices(self) -> Sequence[LanDevice]:
        """The devices on the real LAN, by number; none without one. Blocks and raises like ``totals``."""


class Observation(Struct, frozen=True, kw_only=True):
    """What was seen in one round. ``None`` = that party did not answer."""

    begun_s: float = 0.0
    """When the round began, monotonic."""
    edge: EdgeTotals | None = None
    in_kafka: int | None = None
    database: DatabaseTotals | None = None
    lag: int | None = None
    lost: int = 0
    in_flight: int | None = None
    ring_bytes: int | None = None
    newest: Sequence[NewestChange] = ()
    lan: Sequence[LanDevice] = ()


def lost_changes(*, edge: EdgeTotals | None, in_kafka: int | None, settled: int | None, revs: int | None) -> int:
    """Changes that somebody let go of and the next one does not have.

    Args:
        edge: Read first: what is committed and no longer in an outbox must be in Kafka.
        in_kafka: Counted after that, up to Kafka's end.
        settled: Counted in Kafka before the group was seen without lag; ``None`` while it has lag.
        revs: Read from the database after that: must cover ``settled``.
    """
    on_the_way = 0
    if edge is not None and in_kafka is not None:
        on_the_way = max(0, edge.committed - edge.outbox_rows - in_kafka)
    behind_kafka = max(0, settled - revs) if settled is not None and revs is not None else 0
    return on_the_way + behind_kafka


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` (0 … 1) of ``values`` lie; ``None`` without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
