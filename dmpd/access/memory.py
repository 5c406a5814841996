"""The in-memory twin of a broker's rules: the same interface, under the same contract tests, and it enforces them.

``MemoryRules`` is the broker's side and outlives connections; ``connect`` gives one as ``svc-access`` has it. Put
``MemoryRules.allows`` into a ``MemoryBroker`` and it lets pass what Mosquitto with the acl_file and these rules would.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Literal

from dmpd.access.acl_file import AclFile
from dmpd.access.broker import (
    BrokerGoneError,
    BrokerRefusedError,
    Change,
    DropRule,
    DropUser,
    Held,
    PutBase,
    PutRule,
    PutUser,
)
from dmpd.access.dynsec_rules import BASE_ACLS, Acl, acls
from dmpd.model.grants import Rule
from dmpd.runtime.mqtt import SESSION_TAKEN_OVER
from dmpd.runtime.mqtt_memory import matches

Action = Literal["read", "write", "subscribe"]
_ACL_TYPES = {
    "write": ("publishClientSend",),
    "read": ("publishClientReceive",),
    "subscribe": ("subscribeLiteral", "subscribePattern"),
}


class MemoryRules:
    """What one broker holds. For one loop."""

    def __init__(self, acl_file: AclFile | None = None, *, on_kick: Callable[[str], None] = lambda _: None) -> None:
        """``on_kick`` gets the principal whose connection must end with 0x98."""
        self.held = Held(base=False, rules={}, users={})
        self.journal: list[tuple[datetime | None, Change]] = []
        """All that was done, oldest first; the time if ``clock`` is set."""
        self.clock: Callable[[], datetime] | None = None
        self.kicked: list[str] = []
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._acl_file = acl_file or AclFile("")
        self._on_kick = on_kick
        self._up = True
        self._connection: MemoryRuleBroker | None = None

    async def connect(self) -> "MemoryRuleBroker":
        """A new connection, which takes the place of an older one. Raises ``BrokerGoneError``."""
        await asyncio.sleep(0)
        if not self._up or not self._thawed.is_set():
            raise BrokerGoneError("the broker does not answer")
        if self._connection is not None:
            self._connection.drop("taken over", SESSION_TAKEN_OVER)
        self._connection = MemoryRuleBroker(self)
        return self._connection

    def kill(self, *, rules_survive: bool = True) -> None:
        """Die as by kill -9; without ``rules_survive`` it comes back empty."""
        self._up = False
        if self._connection is not None:
            self._connection.drop("connection reset")
        if not rules_survive:
            self.held = Held(base=False, rules={}, users={})

    def start(self) -> None:
        self._up = True

    def freeze(self) -> None:
        """Stand still as under SIGSTOP: questions wait until ``thaw``."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    async def turn(self) -> None:
        """The broker's next turn of work."""
        await asyncio.sleep(0)
        await self._thawed.wait()

    def allows(self, principal: str, action: str, topic: str) -> bool:
        """Whether Mosquitto would let it pass. A SUBSCRIBE is refused by a denial only."""
        decided = self._decide(principal, action, topic)
        if decided is not None:
            return decided
        if action == "subscribe":
            return True
        return self._acl_file.allows(principal, "write" if action == "write" else "read", topic)

    def do(self, change: Change) -> None:
        """Raises ``BrokerRefusedError``: what it is about is not there, or is there already."""
        self._check(change)
        ends = isinstance(change, DropUser) or (isinstance(change, PutUser) and change.exists)
        self.held.apply(change)
        self.journal.append((self.clock() if self.clock is not None else None, change))
        if ends:
            self.kick(change.user if isinstance(change, PutUser) else change.name)  # type: ignore[union-attr]

    def kick(self, principal: str) -> None:
        self.kicked.append(principal)
        self._on_kick(principal)

    def _check(self, change: Change) -> None:
        held = self.held
        match change:
            case PutRule(rule=rule, exists=exists) if exists != (rule.grant in held.rules):
                raise BrokerRefusedError("Role not found" if exists else "Role already exists")
            case PutUser(user=user, exists=exists) if exists != (user in held.users):
                raise BrokerRefusedError("Client not found" if exists else "Client already exists")
            case PutUser(rules=rules) if not held.base or not set(rules) <= set(held.rules):
                raise BrokerRefusedError("Role not found")
            case DropRule(name=name) if name not in held.rules:
                raise BrokerRefusedError("Role not found")
            case DropRule(name=name) if any(name in (names or ()) for names in held.users.values()):
                raise AssertionError(f"{name} is held: Mosquitto 2.0.11 would die of this")
            case DropUser(name=name) if name not in held.users:
                raise BrokerRefusedError("Client not found")
            case _:
                return

    def _decide(self, principal: str, action: str, topic: str) -> bool | None:
        if principal not in self.held.users:
            return None
        for line in self._lines(principal):
            if line.acltype in _ACL_TYPES[action] and _matches(line, topic):
                return line.allow
        return None

    def _lines(self, principal: str) -> Iterator[Acl]:
        """Of all that the principal holds, in the order in which they decide."""
        found = [self.held.rules.get(name) for name in self.held.users[principal] or ()]
        for rule in sorted((rule for rule in found if rule is not None), key=_precedence):
            yield from sorted(acls(rule), key=lambda line: -line.priority)
        yield from BASE_ACLS


class MemoryRuleBroker:
    """One connection to ``MemoryRules``: a ``RuleBroker``."""

    def __init__(self, server: MemoryRules) -> None:
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.close_reason_code = 0
        self._server = server

    async def read(self) -> Held:
        await self._turn()
        return self._server.held.copy()

    async def apply(self, change: Change) -> None:
        await self._turn()
        self._server.do(change)

    async def apply_all(self, changes: Sequence[Change]) -> None:
        assert not any(isinstance(change, PutBase) for change in changes), "the base goes alone"
        await self._turn()
        for change in changes:
            self._server.do(change)

    async def kick(self, principal: str, *, again: PutUser | None) -> None:
        await self._turn()
        if again is not None and principal not in self._server.held.users:
            raise BrokerRefusedError("Client not found")
        self._server.kick(principal)

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.drop("closed")

    def drop(self, why: str, reason_code: int = 0) -> None:
        if not self.closed.done():
            self.close_reason_code = reason_code
            self.closed.set_result(why)

    async def _turn(self) -> None:
        turn = asyncio.ensure_future(self._server.turn())
        await asyncio.wait((turn, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if self.closed.done():
            turn.cancel()
            raise BrokerGoneError(self.closed.result())


def _precedence(rule: Rule) -> tuple[bool, str]:
    """Those for one session come before those for a whole RAE."""
    return rule.session is None, rule.grant


def _matches(line: Acl, topic: str) -> bool:
    """A subscription is matched as a text by a literal, and by a pattern when the pattern covers all of it."""
    if line.acltype == "subscribeLiteral":
        return line.topic == topic
    if line.acltype == "subscribePattern":
        return covers(line.topic, topic)
    return matches(line.topic, topic)


def covers(pattern: str, wanted: str) -> bool:
    """Whether every topic that the filter ``wanted`` matches is one that ``pattern`` matches."""
    if pattern == "#":
        return True
    have, asked = pattern.split("/"), wanted.split("/")
    for at, level in enumerate(have):
        if level == "#":
            return True
        if at >= len(asked) or asked[at] == "#" or (level != "+" and level != asked[at]):
            return False
    return len(have) == len(asked)
