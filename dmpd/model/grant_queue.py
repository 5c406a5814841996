"""Exclusive grants: one commander of a device session at a time, and a fair queue for the next ones. Pure.

Nobody's window is moved back: who asks is told when his turn comes, and gets it then or, when somebody before him
gives up, earlier. A place in the queue is behind all who asked before and overlap, however short the request is.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec import structs

from dmpd.model.grants import Grant, place


def is_rival(one: Grant, other: Grant) -> bool:
    """Whether the two can never be in force together: exclusive, of different users, on a common session."""
    return (
        one.level == other.level == "exclusive"
        and one.user != other.user
        and one.rae == other.rae
        and (one.session == other.session or None in (one.session, other.session))
    )


def holders(grants: Iterable[Grant], wanted: Grant) -> list[Grant]:
    """Those that keep ``wanted`` from its window, the one that ends last at the end."""
    found = [
        grant
        for grant in grants
        if grant.id != wanted.id
        and is_rival(grant, wanted)
        and grant.starts_at < wanted.ends_at
        and wanted.starts_at < grant.over_at
    ]
    return sorted(found, key=lambda grant: (grant.over_at, grant.id))


def at_the_end(grants: Iterable[Grant], wanted: Grant) -> Grant:
    """``wanted`` with the window that it gets behind all its rivals; as it is if none of them is in its way."""
    ends = [grant.over_at for grant in grants if is_rival(grant, wanted) and grant.over_at > wanted.starts_at]
    if not ends:
        return wanted
    return structs.replace(_moved(wanted, max(ends)), queued=True)


def moved_up(grants: Sequence[Grant], now: datetime) -> list[Grant]:
    """The queued grants that can start earlier than it was said, with their new windows.

    For all grants of one RAE that are not over, after one of them ended early. A window keeps its length, moves only
    towards ``now``, runs into no rival's, and passes nobody who asked before.
    """
    current = {grant.id: grant for grant in grants if grant.over_at > now}
    changed = {}
    for grant in sorted(current.values(), key=place):
        if not grant.queued or grant.starts_at <= now:
            continue
        rivals = [other for other in current.values() if is_rival(other, grant)]
        earliest = max([now, *(rival.over_at for rival in rivals if place(rival) < place(grant))])
        candidates = sorted({earliest, *(rival.over_at for rival in rivals if rival.over_at > earliest)})
        for start in candidates:
            candidate = _moved(grant, start)
            if start < grant.starts_at and not holders(rivals, candidate):
                current[grant.id] = changed[grant.id] = candidate
                break
    return list(changed.values())


def _moved(grant: Grant, start: datetime) -> Grant:
    lasts: timedelta = grant.ends_at - grant.starts_at
    return structs.replace(grant, starts_at=start, ends_at=start + lasts)
