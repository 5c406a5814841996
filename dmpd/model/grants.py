"""Grants: who may see and command which device sessions, and until when. Pure; ``now`` is passed in.

Every program that asks "may this user …" asks here: ``dmpd access`` to make the broker's rules, dmpctl to explain them.
A window is half open, ``[starts_at, ends_at)``. A grant names a device session for ever: it never follows a merge.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, get_args

from msgspec import Struct

from dmpd.model.topics import RAE_SESSION

Level = Literal["read", "command", "exclusive"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
GrantState = Literal["queued", "future", "in force", "orphaned", "ended"]


class Grant(Struct, frozen=True, kw_only=True):
    """One row of ``access_grant``."""

    id: str
    user: str
    rae: str
    session: str | None
    """A device session, the word ``rae`` (the RAE's own topic), or ``None``: all of that RAE."""
    level: Level
    """``exclusive`` is ``command``, and nobody else's command meanwhile."""
    starts_at: datetime
    ends_at: datetime
    created_at: datetime
    granted_by: str
    why: str
    queued: bool = False
    """It waited for others' exclusive grants to end; until it starts its window may move up, never back."""
    ended_at: datetime | None = None
    """Revoked then; ``None`` for one that ends, or ended, at ``ends_at``."""
    ended_by: str | None = None

    @property
    def commands(self) -> bool:
        return self.level != "read"

    @property
    def over_at(self) -> datetime:
        """The instant from which it gives nothing any more."""
        return self.ends_at if self.ended_at is None else min(self.ends_at, self.ended_at)

    def is_in_force(self, now: datetime) -> bool:
        return self.starts_at <= now < self.over_at

    def covers(self, rae: str, session: str) -> bool:
        """Whether it lets its user see ``session`` of ``rae``."""
        return self.rae == rae and self.session in (None, session)

    def covers_command(self, rae: str, session: str) -> bool:
        """As ``covers``, for commands: those to the RAE itself are given by their name only."""
        return self.commands and self.covers(rae, session) and not (self.session is None and session == RAE_SESSION)


class Rule(Struct, frozen=True, kw_only=True):
    """What one grant lets its user do now: the one form in which a broker is told."""

    grant: str
    user: str
    rae: str
    session: str | None
    ends_at: datetime
    command: bool
    """May command ``session``, or every device session of the RAE that is not ``suspended``."""
    suspended: tuple[str, ...] = ()
    """Of a rule for a whole RAE: sessions that another user commands alone, sorted."""


def state_of(grant: Grant, now: datetime, *, session_is_closed: bool = False) -> GrantState:
    """In one word. ``orphaned``: in force or to come, and its device session has ended (left, merged, forgotten)."""
    if now >= grant.over_at:
        return "ended"
    if session_is_closed:
        return "orphaned"
    if now >= grant.starts_at:
        return "in force"
    return "queued" if grant.queued else "future"


def rules(grants: Iterable[Grant], now: datetime) -> list[Rule]:
    """What every grant in force lets its user do at ``now``, by the grants' ids."""
    held = sorted((grant for grant in grants if grant.is_in_force(now)), key=lambda grant: grant.id)
    by_rae: dict[str, list[Grant]] = {}
    for grant in held:
        if grant.level == "exclusive":
            by_rae.setdefault(grant.rae, []).append(grant)
    return [_rule(grant, by_rae.get(grant.rae, ())) for grant in held]


def may_see(grants: Iterable[Grant], user: str, rae: str, session: str, now: datetime) -> bool:
    """Whether ``user`` may receive what ``session`` of ``rae`` says at ``now``."""
    return any(grant.user == user and grant.covers(rae, session) and grant.is_in_force(now) for grant in grants)


def may_command(grants: Collection[Grant], user: str, rae: str, session: str, now: datetime) -> bool:
    """Whether ``user`` may send requests to ``session`` of ``rae`` at ``now``."""
    held = [grant for grant in grants if grant.is_in_force(now) and grant.covers_command(rae, session)]
    return any(grant.user == user for grant in held) and commander(held, rae, session) in (None, user)


def commander(exclusive_in_force: Iterable[Grant], rae: str, session: str | None) -> str | None:
    """The user who alone commands ``session``, or ``None``: everybody with a grant does.

    ``session`` ``None`` asks for a device session that no grant names. Of two that overlap, which only a hand in the
    database can bring about, the older one holds.
    """
    found = [
        grant
        for grant in exclusive_in_force
        if grant.level == "exclusive"
        and (grant.covers_command(rae, session) if session is not None else (grant.rae, grant.session) == (rae, None))
    ]
    return min(found, key=place).user if found else None


def place(grant: Grant) -> tuple[datetime, str]:
    """Its place in every order of precedence: who asked first."""
    return grant.created_at, grant.id


def next_change_at(grants: Iterable[Grant], now: datetime) -> datetime | None:
    """When the rules change next by time alone; ``None``: not before somebody changes the grants."""
    instants = (instant for grant in grants for instant in (grant.starts_at, grant.over_at) if now < grant.over_at)
    return min((instant for instant in instants if instant > now), default=None)


def _rule(grant: Grant, exclusive: Sequence[Grant]) -> Rule:
    command = grant.commands
    suspended: tuple[str, ...] = ()
    if grant.commands and exclusive:
        command = commander(exclusive, grant.rae, grant.session) in (None, grant.user)
        if command and grant.session is None:
            named = sorted({other.session for other in exclusive if other.session is not None})
            suspended = tuple(one for one in named if commander(exclusive, grant.rae, one) != grant.user)
    return Rule(
        grant=grant.id,
        user=grant.user,
        rae=grant.rae,
        session=grant.session,
        ends_at=grant.ends_at,
        command=command,
        suspended=suspended,
    )
