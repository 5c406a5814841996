"""What happened to grants at the broker, for the audit; waits here, bounded, for the database."""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from dmpd.access import metrics
from dmpd.access.broker import Held
from dmpd.access.store import Event, new_event
from dmpd.model.grants import Grant

ACTOR = "svc-access"


class Journal:
    """Lines that wait for the database, oldest first. One thread adds, another takes: both ends are atomic."""

    def __init__(self, *, events_max: int, on_news: Callable[[], None]) -> None:
        """``on_news``: called after each line."""
        self._waiting: deque[Event] = deque()
        self._events_max = events_max
        self._on_news = on_news
        self.announced: set[str] = set()
        """Grants of which the audit says, or will say, that their rules are in the broker."""

    def add(self, at: datetime, code: str, **more: Any) -> None:
        if len(self._waiting) >= self._events_max:
            metrics.events_dropped.inc()
            return
        self._waiting.append(new_event(at, code, ACTOR, **more))
        self._on_news()

    def next(self, count: int) -> Sequence[Event]:
        """The oldest ``count``; they stay until ``written``."""
        return [self._waiting[at] for at in range(min(count, len(self._waiting)))]

    def written(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()

    def in_force(self, at: datetime, grant: str, user: str, known: Grant | None) -> None:
        """The broker holds the rule of ``grant`` now."""
        if grant in self.announced:
            return
        self.announced.add(grant)
        detail: dict[str, Any] = {}
        if known is not None:
            waited_s = max(0.0, (at - max(known.starts_at, known.created_at)).total_seconds())
            metrics.in_force_seconds.observe(waited_s)
            detail = {"after_s": round(waited_s, 3)}
        self.add(at, "in force", grant=grant, principal=user, detail=detail)

    def ended(self, at: datetime, grant: str, user: str, ends_at: datetime | None) -> None:
        """The broker holds it no more."""
        self.announced.discard(grant)
        detail: dict[str, Any] = {}
        if ends_at is not None:
            late_s = (at - ends_at).total_seconds()
            detail = {"after_s": round(late_s, 3)}
            if late_s >= 0:
                metrics.end_seconds.observe(late_s)
        self.add(at, "ended", grant=grant, principal=user, detail=detail)

    def found(self, at: datetime, held: Held) -> None:
        """The broker was read: what was lost meanwhile, and what nobody granted."""
        there = {name for names in held.users.values() for name in names or ()}
        for grant in sorted(self.announced - there):
            self.announced.discard(grant)
            self.add(at, "lost", grant=grant, detail={"why": "the broker has it no more"})
