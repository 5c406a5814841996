"""What ``/status`` tells of the grants and of the broker's rules, and the metrics of the same."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from dmpd.access import metrics
from dmpd.access.broker import Held
from dmpd.model.grants import Grant


def told(
    *, now: datetime, held: Held | None, grants: Sequence[Grant] | None, missing: int, success_age_s: float | None
) -> dict[str, Any]:
    """Sets the metrics too.

    Args:
        now: By which grants start and end.
        held: What the broker holds; ``None``: it was never read.
        grants: As the database said last; ``None``: it was never read.
        missing: Rules and users of the broker that are not as they should be.
        success_age_s: How long ago there were none; ``None``: never yet.
    """
    in_force = [grant for grant in grants or () if grant.is_in_force(now)]
    next_end_s = _next_end_s(now, held, None if grants is None else in_force)
    metrics.grants_in_force.set(len(in_force))
    metrics.rules.set(len(held.rules) if held is not None else 0)
    metrics.difference.set(missing)
    metrics.next_end.set(next_end_s)
    metrics.success_age.set(-1 if success_age_s is None else success_age_s)
    return {
        "grants_in_force": len(in_force),
        "rules": None if held is None else len(held.rules),
        "users": None if held is None else len(held.users),
        "difference": missing,
        "success_age_s": None if success_age_s is None else round(success_age_s, 3),
        "next_end_s": round(next_end_s, 3),
    }


def _next_end_s(now: datetime, held: Held | None, in_force: Sequence[Grant] | None) -> float:
    """-1: nothing ends. Without the database by what the broker's rules say."""
    if in_force is not None:
        ends = [grant.over_at for grant in in_force]
    else:
        ends = [rule.ends_at for rule in held.rules.values() if rule is not None] if held is not None else []
    return (min(ends) - now) / timedelta(seconds=1) if ends else -1.0
