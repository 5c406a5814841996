"""How long and how often things are measured: whole, or short for trying."""

from msgspec import Struct


class Size(Struct, frozen=True, kw_only=True):
    """Each benchmark takes from here what it needs."""

    runs: int = 5
    state_runs: int = 3
    """How often a state is watched that takes ``steady_s`` or ``stall_s`` each time."""
    path_records: int = 2_000_000
    steady_s: float = 30.0
    """How long a state is watched."""
    stall_s: float = 60.0
    """For how long a sink stands still, or is slow."""
    backlog_records: int = 5_000_000


WHOLE = Size()
SHORT = Size(runs=3, state_runs=2, path_records=600_000, steady_s=8.0, stall_s=12.0, backlog_records=1_000_000)
