"""Keeps a broker's rules equal to the grants: a few changes at a time, ends first, for as long as the daemon lives.

On the event loop; knows the database only by what it is given (``use``). Without it, it goes on with what it was given
last, and if that is nothing, with what the broker holds: what ends, ends in time in any case.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dmpd.access import metrics, status
from dmpd.access.audit import LastWords
from dmpd.access.broker import (
    BrokerGoneError,
    BrokerRefusedError,
    Change,
    Held,
    PutBase,
    RuleBroker,
)
from dmpd.access.clock import GrantClock
from dmpd.access.exchange import Kick, Snapshot
from dmpd.access.journal import Journal
from dmpd.access.plan import Wanted, changes, difference, is_user, put_user, reductions, still_allowed, wanted
from dmpd.access.settings import AccessSettings
from dmpd.model.grants import Grant, next_change_at, rules
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.mqtt import SESSION_TAKEN_OVER

Connect = Callable[[], Awaitable[RuleBroker]]

_COMMAND_S: Final = 0.0005
_COMMAND_PER_RULE_S: Final = 15e-6
"""What Mosquitto needs for one command beside so many rules, at least: it writes all of them to its file each time."""
_BATCH_MAX: Final = 16
_NEAR_S: Final = 0.0005
"""Timers ring a little early; the instant itself must be reached."""

_SHORT_LIFE_S: Final = 5.0
_SHORT_LIVES_MAX: Final = 3
"""So many connections that were made at once and ended soon: somebody else has our name."""

_log = logging.getLogger(__name__)


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Reconciler:
    """Owns the connection to the broker. All on one loop's thread."""

    def __init__(self, settings: AccessSettings, *, connect: Connect, journal: Journal) -> None:
        self._settings = settings
        self._connect = connect
        self._journal = journal
        self.clock = GrantClock(datetime.now(UTC), boot_s())
        self.problem: str | None = "the broker was not reached yet"
        """Why the broker's rules are not known to be right; ``None``: they are."""
        self.snapshot: Snapshot | None = None
        self._by_id: dict[str, Grant] = {}
        self._held: Held | None = None
        self._target: Wanted | None = None
        self._next_change: datetime | None = None
        self._todo: deque[Change] = deque()
        self._urgent = 0
        self._news = asyncio.Event()
        self._is_stale = True
        self._kicks_done: set[str] = set()
        self.kicks_to_forget: list[str] = []
        """Done; the database shall know no more of them."""
        self.last_success_s: float | None = None
        self._asked: deque[tuple[bool, asyncio.Future[list[Change]]]] = deque()

    @property
    def now(self) -> datetime:
        return self.clock.now(boot_s())

    def use(self, snapshot: Snapshot) -> None:
        """What is granted now. Ends that it brings are on their way to the broker within a turn of the loop."""
        before, self.snapshot = self.snapshot, snapshot
        is_same = before is not None and (before.users, list(before.grants)) == (snapshot.users, list(snapshot.grants))
        if not is_same or any(kick.id not in self._kicks_done for kick in snapshot.kicks):
            self._by_id = {grant.id: grant for grant in snapshot.grants}
            self._is_stale = True
            self._news.set()
        self._kicks_done &= {kick.id for kick in snapshot.kicks}

    def recall(self, words: LastWords) -> None:
        """What the audit says last of the broker: what it lacks is added to it."""
        self._journal.recall(words)
        if self._held is not None:
            self._journal.found(self.now, self._held)
            self._is_stale = True
            self._news.set()

    async def compare(self, *, dry_run: bool) -> list[Change]:
        """Have the broker read anew; what has to be changed, which is done at once, or (``dry_run``) not for this.

        Raises:
            BrokerGoneError: It is not there.
        """
        if self._held is None or self.snapshot is None:
            raise BrokerGoneError(self.problem or "the database was not read yet")
        answer: asyncio.Future[list[Change]] = asyncio.get_running_loop().create_future()
        self._asked.append((dry_run, answer))
        self._news.set()
        return await answer

    async def run(self) -> None:
        """Connect, reconcile, connect again; until cancelled."""
        short_lives = 0
        while True:
            try:
                broker = await self._connect()
            except UnavailableError as error:
                metrics.connects.labels("failed").inc()
                short_lives = 0
                self.problem = f"broker: {error}"
                await asyncio.sleep(self._settings.retry_interval_s)
                continue
            metrics.connects.labels("ok").inc()
            connected_s = time.monotonic()
            try:
                await self._serve(broker)
            except BrokerGoneError as error:
                self.problem = f"broker: {error}"
                _log.warning("the broker is gone: %s", error)
                while self._asked:
                    _, answer = self._asked.popleft()
                    _fail(answer, error)
            finally:
                with contextlib.suppress(UnavailableError):
                    await broker.close()
            # Mosquitto 2.0.11 hangs up on who is taken over; a broker that dies does not take connections at once.
            short_lives = short_lives + 1 if time.monotonic() - connected_s < _SHORT_LIFE_S else 0
            taken_over = broker.close_reason_code == SESSION_TAKEN_OVER or short_lives >= _SHORT_LIVES_MAX
            if taken_over:
                short_lives = 0
                self.problem = "a second dmpd access runs: it takes our name over at the broker (0x8E)"
                _log.error("%s; standing by for %g s", self.problem, self._settings.standby_s)
            await asyncio.sleep(self._settings.standby_s if taken_over else self._settings.retry_interval_s)

    async def _serve(self, broker: RuleBroker) -> None:
        """One life of the connection. Raises ``BrokerGoneError`` at its end."""
        await self._read(broker)
        read_s = time.monotonic()
        while True:
            self._plan()
            if self._asked:
                await self._compare(broker)
            elif self._todo:
                await self._step(broker)
            elif not await self._kick(broker):
                self._succeeded()
                await self._wait(broker, self._settings.reread_interval_s - (time.monotonic() - read_s))
                if time.monotonic() - read_s >= self._settings.reread_interval_s:
                    await self._read(broker)
                    read_s = time.monotonic()

    async def _read(self, broker: RuleBroker) -> None:
        self._held = held = await broker.read()
        self._journal.found(self.now, held)
        self._is_stale = True

    async def _compare(self, broker: RuleBroker) -> None:
        """Answer who asked ``compare``."""
        dry_run, answer = self._asked[0]
        held = await broker.read()
        assert self._target is not None
        self._news.clear()
        self._is_stale = True
        self._asked.popleft()
        if not answer.done():
            answer.set_result(changes(self._target, held.copy()))
        if not dry_run:
            self._held = held

    def _plan(self) -> None:
        """Think again if the grants changed, the broker was read anew, or a start or an end has come."""
        now = self.now
        if not (self._is_stale or (self._next_change is not None and now >= self._next_change)):
            return
        assert self._held is not None
        self._news.clear()
        self._is_stale = False
        snapshot = self.snapshot
        if snapshot is None:
            self._target = still_allowed(self._held, now)
            ends = [rule.ends_at for rule in self._target.rules.values()]
            self._next_change = min(ends, default=None)
        else:
            users = snapshot.users | {user for user in self._held.users if is_user(user)}
            self._target = wanted(rules(snapshot.grants, now), users)
            self._next_change = next_change_at(snapshot.grants, now)
        self._urgent = len(reductions(self._target, self._held))
        self._todo = deque(changes(self._target, self._held))

    async def _step(self, broker: RuleBroker) -> None:
        """The next changes; and time for the RAEs behind those that only give."""
        assert self._held is not None
        command_s = _COMMAND_S + len(self._held.rules) * _COMMAND_PER_RULE_S
        batch = self._batch(command_s)
        begun_s = time.monotonic()
        try:
            await (broker.apply(batch[0]) if len(batch) == 1 else broker.apply_all(batch))
        except BrokerRefusedError as error:
            metrics.refusals.inc()
            _log.warning("the broker refuses a change, reading its rules anew: %s", error)
            self.problem = f"the broker refuses a change: {error}"
            await asyncio.sleep(self._settings.retry_interval_s)
            await self._read(broker)
            return
        took_s = time.monotonic() - begun_s
        metrics.change_seconds.observe(took_s)
        for change in batch:
            metrics.changes.labels(type(change).__name__).inc()
            self._todo.popleft()
            self._urgent -= 1
            self._journal.note(self.now, change, self._held, self._by_id)
            self._held.apply(change)
        if self._todo and self._urgent <= 0:
            self.problem = f"{len(self._todo)} changes are on their way to the broker"
            # What it took beyond that it took on a busy machine, where the broker served others in between.
            busy_s = min(took_s, len(batch) * command_s)
            await self._wait(broker, busy_s * self._settings.pause_factor)

    def _batch(self, command_s: float) -> list[Change]:
        """So many of the next changes as keep the broker from others no longer than ``batch_s``, at least one."""
        if isinstance(self._todo[0], PutBase):
            return [self._todo[0]]
        count = max(1, int(self._settings.batch_s / command_s))
        return list(itertools.islice(self._todo, min(count, _BATCH_MAX)))

    async def _kick(self, broker: RuleBroker) -> bool:
        """End the connection of one principal that was asked for; whether there was one."""
        kick = next((one for one in self._kicks() if one.id not in self._kicks_done), None)
        if kick is None:
            return False
        assert self._held is not None
        held = self._held.users.get(kick.principal)
        again = None if held is None else put_user(kick.principal, held, self._held.rules, exists=True)
        try:
            await broker.kick(kick.principal, again=again)
        except BrokerRefusedError as error:
            metrics.refusals.inc()
            _log.warning("the broker refuses to end the connection of %s: %s", kick.principal, error)
            await asyncio.sleep(self._settings.retry_interval_s)
            await self._read(broker)
            return True
        self._kicks_done.add(kick.id)
        self._journal.add(self.now, "kicked", principal=kick.principal, detail={"asked_by": kick.asked_by})
        self.kicks_to_forget.append(kick.id)
        return True

    def _kicks(self) -> Sequence[Kick]:
        return self.snapshot.kicks if self.snapshot is not None else ()

    async def _wait(self, broker: RuleBroker, longest_s: float) -> None:
        """Until something is new, the next start or end comes, or ``longest_s`` are over."""
        if self._next_change is not None:
            longest_s = min(longest_s, (self._next_change - self.now).total_seconds() + _NEAR_S)
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((news, broker.closed), timeout=max(0.0, longest_s), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if broker.closed.done():
            raise BrokerGoneError(broker.closed.result())

    def _succeeded(self) -> None:
        if self.snapshot is not None:
            self.last_success_s = boot_s()
            metrics.last_success.set_to_current_time()
            if self._target is not None:
                for rule in self._target.rules.values():
                    self._journal.in_force(self.now, rule, None)
        self.problem = None

    def status(self) -> dict[str, Any]:
        """What the health server tells; also sets the metrics. On the loop's thread."""
        return status.told(
            now=self.now,
            held=self._held,
            grants=None if self.snapshot is None else self.snapshot.grants,
            missing=difference(self._target, self._held) if self._todo and self._target and self._held else 0,
            success_age_s=None if self.last_success_s is None else boot_s() - self.last_success_s,
        ) | {"clock": "database" if self.clock.is_database_time else "machine", "problem": self.problem}


def _fail(answer: "asyncio.Future[list[Change]]", error: BrokerGoneError) -> None:
    if not answer.done():
        answer.set_exception(error)
