"""The way from the rules that a broker holds to those that it should: which changes, in which order. Pure.

What takes rights away comes first. A rule is made before somebody holds it and removed after nobody does (the other
order kills Mosquitto 2.0.11). New rules reach the users with the fewest first, so that one grant for one user never
waits behind a thousand of another's.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from msgspec import Struct

from dmpd.access.broker import Change, DropRule, DropUser, Held, PutBase, PutRule, PutUser
from dmpd.model.grants import Rule
from dmpd.model.principals import PrincipalKind, principal_kind


class Wanted(Struct, frozen=True, kw_only=True):
    """What the broker should hold."""

    rules: Mapping[str, Rule]
    """By the grant's id."""
    users: frozenset[str]
    """Users who hold the base whether they have a rule or not."""


def wanted(rules: Iterable[Rule], users: Iterable[str]) -> Wanted:
    by_id = {rule.grant: rule for rule in rules}
    return Wanted(rules=by_id, users=frozenset(users) | {rule.user for rule in by_id.values()})


def still_allowed(held: Held, now: datetime) -> Wanted:
    """What may stay while the database was never read: our own rules that have not ended, held by who holds them."""
    return wanted(
        (
            rule
            for name, rule in held.rules.items()
            if rule is not None and now < rule.ends_at and name in (held.users.get(rule.user) or ())
        ),
        (user for user in held.users if is_user(user)),
    )


def is_user(name: str) -> bool:
    return principal_kind(name) is PrincipalKind.USER


def changes(target: Wanted, held: Held) -> list[Change]:
    """What makes ``held`` equal to ``target``, in the order in which it must be done; empty when nothing is missing.

    A user of ours is never forgotten: without the base he would have the rights of a RAE of his name.
    """
    names_of = _names_by_user(target)
    found = reductions(target, held)
    found += _additions(target, held, names_of)
    found += _widenings(target, held)
    found += [DropRule(name) for name in sorted(held.rules) if name not in target.rules]
    return found


def put_user(user: str, names: Iterable[str], rules: Mapping[str, Rule | None], *, exists: bool) -> PutUser:
    """``user`` shall hold ``names``; ``rules`` has all of them."""
    ordered = tuple(sorted(names))
    whole = frozenset(name for name in ordered if (rule := rules.get(name)) is not None and rule.session is None)
    return PutUser(user, ordered, exists=exists, whole=whole)


def reductions(target: Wanted, held: Held) -> list[Change]:
    """Those of ``changes``, at its beginning, that take something away."""
    return ([] if held.base else [PutBase()]) + list(_reductions(target, held, _names_by_user(target)))


def difference(target: Wanted, held: Held) -> int:
    """How many rules and users are not as they should be."""
    names_of = _names_by_user(target)
    rules = sum(held.rules.get(name) != rule for name, rule in target.rules.items())
    rules += sum(name not in target.rules for name in held.rules)
    ours = target.users | {name for name in held.users if is_user(name)}
    users = sum(held.users.get(user) != names_of.get(user, frozenset()) for user in ours)
    return rules + users + sum(not is_user(name) for name in held.users) + (not held.base)


def _names_by_user(target: Wanted) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, rule in target.rules.items():
        found.setdefault(rule.user, set()).add(name)
    return {user: frozenset(names) for user, names in found.items()}


def _reductions(target: Wanted, held: Held, names_of: Mapping[str, frozenset[str]]) -> Iterator[Change]:
    """What takes rights away, and nothing else: every user with too much, every rule that allows too much."""
    for user, has in sorted(held.users.items()):
        if not is_user(user):
            yield DropUser(user)
            continue
        kept = _kept(target, held, names_of.get(user, frozenset()), has)
        if has is None or has - kept:
            yield put_user(user, kept, target.rules, exists=True)
    for name, rule in sorted(target.rules.items()):
        now_there = held.rules.get(name)
        if now_there is not None and now_there != rule and _allows_more(now_there, rule):
            yield PutRule(rule, exists=True)


def _kept(target: Wanted, held: Held, wanted_names: frozenset[str], has: frozenset[str] | None) -> frozenset[str]:
    """Rules that the user holds by right; one of another user, or not ours, is taken away to be made anew."""
    return frozenset(name for name in wanted_names & (has or frozenset()) if _is_same_scope(held, target.rules[name]))


def _additions(target: Wanted, held: Held, names_of: Mapping[str, frozenset[str]]) -> Iterator[Change]:
    missing = {
        user: names_of.get(user, frozenset()) - (held.users.get(user) or frozenset())
        | {name for name in names_of.get(user, frozenset()) if not _is_same_scope(held, target.rules[name])}
        for user in target.users
    }
    for user in sorted(missing, key=lambda user: (not names_of.get(user), len(missing[user]), user)):
        exists = user in held.users
        if exists and not missing[user]:
            continue
        for name in sorted(missing[user]):
            rule = target.rules[name]
            if held.rules.get(name) != rule:
                yield PutRule(rule, exists=name in held.rules)
        yield put_user(user, names_of.get(user, ()), target.rules, exists=exists)


def _widenings(target: Wanted, held: Held) -> Iterator[Change]:
    """Rules that stay with their user and allow more than they did, or for longer."""
    for name, rule in sorted(target.rules.items()):
        now_there = held.rules.get(name)
        is_held = name in (held.users.get(rule.user) or ())
        if is_held and _is_same_scope(held, rule) and now_there not in (None, rule):
            assert now_there is not None
            if not _allows_more(now_there, rule):
                yield PutRule(rule, exists=True)


def _is_same_scope(held: Held, rule: Rule) -> bool:
    found = held.rules.get(rule.grant)
    return found is not None and (found.user, found.rae, found.session) == (rule.user, rule.rae, rule.session)


def _allows_more(there: Rule, rule: Rule) -> bool:
    """Whether the rule that is there allows something that ``rule`` does not."""
    return (
        (there.command and not rule.command)
        or (there.command and not set(rule.suspended) <= set(there.suspended))
        or there.ends_at > rule.ends_at
        or (there.user, there.rae, there.session) != (rule.user, rule.rae, rule.session)
    )
