"""How much and how often is measured: whole, or short for trying."""

from msgspec import Struct


class Size(Struct, frozen=True, kw_only=True):
    """Each benchmark takes from here what it needs."""

    present: int = 500
    """Grants in force beside those that are measured."""
    watchers: int = 3
    turns: int = 18
    """Of each watcher: grants, one after the other."""
    outages: int = 5
    empty: int = 3
    """How often the broker comes back without rules."""
    many: int = 2_000


WHOLE = Size()
SHORT = Size(present=100, watchers=2, turns=4, outages=1, empty=1, many=300)
