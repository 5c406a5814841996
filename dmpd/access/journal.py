"""What happened to grants at the broker, for the audit; waits here, bounded, for the database.

What is lost here (the process is killed while the database is away, or too much waits) is not lost to the audit: what
the broker holds is compared with what the audit says last, and what is missing is written, as ``found`` afterwards.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from dmpd.access import metrics
from dmpd.access.audit import Event, LastWords, new_event
from dmpd.access.broker import Change, DropRule, DropUser, Held, PutRule, PutUser
from dmpd.model.grants import Grant, Rule

ACTOR: Final = "svc-access"
FOUND: Final = {"found": "afterwards"}
"""Of a line that was missing: its instant is when that was seen. It happened before, and nobody knows when."""

_log = logging.getLogger(__name__)


class Journal:
    """Lines that wait for the database, oldest first. One thread adds, another takes: both ends are atomic."""

    def __init__(self, *, events_max: int, on_news: Callable[[], None]) -> None:
        """``on_news``: called after each line."""
        self._waiting: deque[Event] = deque()
        self._events_max = events_max
        self._on_news = on_news
        self.announced: set[str] = set()
        """Grants of which the audit says, or will say, that their rules are in the broker."""
        self.has_gap = False
        """Lines were lost: the audit's last words must be read again."""
        self._unended: dict[str, str] = {}

    def add(self, at: datetime, code: str, **more: Any) -> None:
        if len(self._waiting) >= self._events_max:
            metrics.events_dropped.inc()
            self.has_gap = True
            return
        self._waiting.append(new_event(at, code, ACTOR, **more))
        self._on_news()

    def next(self, count: int) -> Sequence[Event]:
        """The oldest ``count``; they stay until ``written``."""
        return [self._waiting[at] for at in range(min(count, len(self._waiting)))]

    def written(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()

    def note(self, at: datetime, change: Change, held: Held, known: Mapping[str, Grant]) -> None:
        """The broker did ``change``, of which ``held`` does not know yet.

        ``known``: the grants by which it was asked for; empty while the database was never read.
        """
        match change:
            case PutUser(user=user, rules=names):
                before = held.users.get(user) or frozenset()
                for name in sorted(before - set(names)):
                    rule = held.rules.get(name)
                    is_timed = rule is not None and rule.ends_at <= at  # or it was revoked, and the audit has that
                    self.ended(at, name, user, rule.ends_at if rule is not None and is_timed else None)
                for name in names:
                    rule = held.rules.get(name)
                    if rule is not None and name in known:
                        self.in_force(at, rule, None if name in before else known[name])
            case PutRule(rule=rule, exists=True):
                detail = {"ends_at": rule.ends_at.isoformat(), "command": rule.command, "suspended": rule.suspended}
                self.add(at, "updated", grant=rule.grant, principal=rule.user, detail=detail)
            case DropRule(name=name) if held.rules[name] is None:
                metrics.foreign.inc()
                _log.warning("removed a rule that nobody granted: %s", name)
                self.add(at, "foreign rule removed", detail={"rule": name})
            case DropUser(name=name):
                metrics.foreign.inc()
                _log.warning("removed a principal that is no user: %s", name)
                self.add(at, "foreign principal removed", principal=name)

    def recall(self, words: LastWords) -> None:
        """What the audit says last, as read by the thread that takes; lines that were added since come behind it."""
        self.announced = set(words.in_force)
        self._unended = dict(words.unended)
        for event in self._waiting:
            if event.grant is not None and event.code in ("in force", "lost", "ended"):
                self._unended.pop(event.grant, None)
                (self.announced.add if event.code == "in force" else self.announced.discard)(event.grant)

    def in_force(self, at: datetime, rule: Rule, known: Grant | None) -> None:
        """The broker holds ``rule`` now; ``known``: its grant, it was given a moment ago; ``None``: it was found."""
        if rule.grant in self.announced:
            return
        self.announced.add(rule.grant)
        detail: dict[str, Any] = {"ends_at": rule.ends_at.isoformat()}
        if known is None:
            detail |= FOUND
        else:
            waited_s = max(0.0, (at - max(known.starts_at, known.created_at)).total_seconds())
            metrics.in_force_seconds.observe(waited_s)
            detail["after_s"] = round(waited_s, 3)
        self.add(at, "in force", grant=rule.grant, principal=rule.user, detail=detail)

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
        """The broker was read, or the audit's last words: what was lost meanwhile, and what ended unrecorded.

        What is over and there still is about to be ended, which has its line then.
        """
        there = {name for names in held.users.values() for name in names or ()}
        for grant, user in sorted(self._unended.items()):
            if grant not in there:
                self.announced.discard(grant)
                self.add(at, "ended", grant=grant, principal=user, detail=FOUND)
        self._unended = {}
        for grant in sorted(self.announced - there):
            self.announced.discard(grant)
            self.add(at, "lost", grant=grant, detail={"why": "the broker has it no more"})
