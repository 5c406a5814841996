"""How much and how long is measured: whole, or short for trying."""

from msgspec import Struct


class Size(Struct, frozen=True, kw_only=True):
    """Each benchmark takes from here what it needs."""

    runs: int = 3
    publishers: int = 1_000
    messages: int = 300_000
    """Of the uplink: queued before it starts."""
    steady_s: float = 60.0
    """How long the latency is watched."""
    stall_s: float = 300.0
    """For how long Kafka stands still."""
    durable_s: float = 20.0
    """Of each window with, and each without outbox rows."""
    durable_windows: int = 6
    durable_raes: int = 3_000
    requests: int = 1_000
    """There and back, one after the other, in each run."""


WHOLE = Size()
SHORT = Size(
    runs=1,
    publishers=200,
    messages=60_000,
    steady_s=10.0,
    stall_s=20.0,
    durable_s=8.0,
    durable_windows=2,
    durable_raes=500,
    requests=200,
)
