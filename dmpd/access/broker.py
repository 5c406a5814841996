"""What access needs of an MQTT broker: rules in, rules out, kick. ``dynsec`` is Mosquitto's, ``memory`` the twin's.

A broker holds *rules*, each of one grant, and *users*, each holding some of these rules; what a user holds nothing of
he may not do. Besides there is the *base*, which every user holds: it denies all that no rule allows.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dmpd.model.grants import Rule
from dmpd.runtime.errors import UnavailableError


class BrokerGoneError(UnavailableError):
    """The connection to the broker ended; what was under way may have been done or not: read again."""


class BrokerRefusedError(Exception):
    """The broker says no to a change: it has other rules than we think. Read again."""


class PutBase(Struct, frozen=True, tag=True):
    """Make, or mend, what every user holds."""


class PutRule(Struct, frozen=True, tag=True):
    """Make a rule, which nobody holds yet, or (``exists``) give one that is there this content at once."""

    rule: Rule
    exists: bool


class DropRule(Struct, frozen=True, tag=True):
    """Remove a rule that nobody holds: Mosquitto 2.0.11 dies later of one that was held."""

    name: str


class PutUser(Struct, frozen=True, tag=True):
    """Have ``user`` hold exactly these rules, all of which are there. Ends his connection (0x98) if ``exists``."""

    user: str
    rules: tuple[str, ...]
    exists: bool
    whole: frozenset[str] = frozenset()
    """Those of ``rules`` that are for a whole RAE: what any other allows counts before what these deny."""


class DropUser(Struct, frozen=True, tag=True):
    """Forget a principal that is no user of ours. Ends its connection."""

    name: str


Change = PutBase | PutRule | DropRule | PutUser | DropUser


class Held:
    """What a broker holds, as it was read and changed since. Owned by the reconciler; not for several threads."""

    def __init__(self, *, base: bool, rules: dict[str, Rule | None], users: dict[str, frozenset[str] | None]) -> None:
        self.base = base
        self.rules = rules
        """By name, which is the grant's id; ``None`` = none that we would make: another's, or changed by hand."""
        self.users = users
        """The names of the rules that each holds; ``None`` = he holds something else too, or not the base."""

    def apply(self, change: Change) -> None:
        """Note that the broker did this."""
        match change:
            case PutBase():
                self.base = True
            case PutRule(rule=rule):
                self.rules[rule.grant] = rule
            case DropRule(name=name):
                del self.rules[name]
            case PutUser(user=user, rules=rules):
                self.users[user] = frozenset(rules)
            case DropUser(name=name):
                del self.users[name]

    def copy(self) -> "Held":
        return Held(base=self.base, rules=dict(self.rules), users=dict(self.users))


class RuleBroker(Protocol):
    """One life of one connection to the broker, as ``svc-access``. All on the loop's thread; one call at a time."""

    @property
    def closed(self) -> "asyncio.Future[str]":
        """Done with the reason when the connection has ended."""

    @property
    def close_reason_code(self) -> int:
        """The broker's DISCONNECT reason code, 0 when it sent none; 0x8E: somebody else took our name."""

    async def read(self) -> Held:
        """All that the broker holds. Some small questions, so that it stands still for nobody.

        Raises:
            BrokerGoneError: The connection ended, or no answer came in time.
        """

    async def apply(self, change: Change) -> None:
        """Have the broker do one change; returns when it is in force.

        Raises:
            BrokerGoneError: As ``read``.
            BrokerRefusedError: It does not do it.
        """

    async def apply_all(self, changes: Sequence[Change]) -> None:
        """As ``apply`` for several, but the base, in this order, at one go: the broker serves nobody else meanwhile.

        When one is refused, each of the others was done or not: read again.
        """

    async def kick(self, principal: str, *, again: PutUser | None) -> None:
        """End the connection of ``principal``, if it has one; ``again``: what it holds, ``None`` if it is no user.

        Raises:
            BrokerGoneError, BrokerRefusedError: As ``apply``.
        """

    async def close(self) -> None:
        """End the connection in order. Takes a second at most."""
