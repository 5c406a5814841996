"""When the next run is due, and when nobody has seen one end for too long. Pure; times are seconds of one clock."""


def due_s(last_started_s: float | None, now_s: float, *, interval_s: float, jitter: float, draw: float) -> float:
    """When to start the next run.

    Args:
        last_started_s: Of whichever instance; ``None`` = there was none: at once, within a tenth of the jitter.
        now_s: A run that is overdue starts at once, with the same small spread: two instances do not collide for ever.
        interval_s: From start to start.
        jitter: Share of the interval.
        draw: Random, 0 .. 1; drawn once for each run.
    """
    spread_s = interval_s * jitter
    soon_s = now_s + spread_s * draw / 10
    if last_started_s is None:
        return soon_s
    at_s = last_started_s + interval_s + spread_s * (2 * draw - 1)
    return at_s if at_s > now_s else soon_s


def alarm(*, ended_age_s: float | None, watched_s: float, alarm_s: float) -> str | None:
    """The alarm's sentence, or ``None``.

    Args:
        ended_age_s: How long ago the last run ended; ``None`` = none is known.
        watched_s: For how long somebody could have run one: a daemon that just began is given its time.
        alarm_s: After so long it is one.
    """
    age_s = watched_s if ended_age_s is None else ended_age_s
    if ended_age_s is None and watched_s <= alarm_s:
        return None
    if age_s <= alarm_s:
        return None
    return f"no canary run ended in the last {age_s / 3600:.1f} h, at least one in {alarm_s / 3600:.1f} h expected"
