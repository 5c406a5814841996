"""The phases of one run, in their order: what is done, and what is seen of it.

Preflight, sweep, control group, ramp, flash with requests and probes, drain, control group again, proof, close,
cleanup. All on the runner's loop; what blocks is done by threads.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import structs

from dmpd.canary import store
from dmpd.canary.arrivals import Finding
from dmpd.canary.broker_watch import BrokerWatch
from dmpd.canary.crowd import Connected, Job, Told
from dmpd.canary.database_watch import DatabaseWatch, read_rows, still_open
from dmpd.canary.kafka_watch import KafkaWatch, LagWatch
from dmpd.canary.plan import Plan, probing, rae_of, shares
from dmpd.canary.platform import Platform, draining, missing_certificates, worker_deaths
from dmpd.canary.report import Facts, Former, Reason
from dmpd.canary.requests import RequestSample
from dmpd.canary.rows import FoundRow, differences
from dmpd.canary.seen import begun, facts_of
from dmpd.canary.settings import CanarySettings
from dmpd.canary.workers import CrowdFailedError, Workers
from dmpd.runtime import kafka_admin
from dmpd.runtime.database import Connection

_LOOK_S: Final = 0.2
_SAY_S: Final = 1.0
_CONTROL_RAMP_S: Final = 1.0
_CONTROL_INTERVAL_S: Final = 1.0
_CONTROL_LOOK_S: Final = _CONTROL_INTERVAL_S / 4
"""On a connection of its own: between two looks at the whole crowd more than a beat may pass."""
_SYS_S: Final = 12.0
"""The broker's own figures come every 10 s by default."""
_LAST_WORDS_S: Final = 10.0
_CLOSED_S: Final = 30.0
_OPEN_LOOK_S: Final = 0.5

_T = TypeVar("_T")

Say = Callable[[str, Mapping[str, object]], None]
"""Gets the phase and its figures, now and then."""

_log = logging.getLogger(__name__)


class StopRunError(Exception):
    """There is nothing to be proved: ``reason`` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence)
        self.reason = reason


class Phases:
    """``run`` once, then ``end``, then ``facts``: of whatever was seen, also after a run that was cut short."""

    def __init__(
        self, settings: CanarySettings, platform: Platform, *, plan: Plan, former: Sequence[Former], say: Say
    ) -> None:
        self._settings = settings
        self._platform = platform
        self._say = say
        self._began_ns = time.monotonic_ns()
        self.took_s: dict[str, float] = {}
        self._now, self.where = "", "before it began"
        self._plan = plan
        beats = int(settings.time_box_s / _CONTROL_INTERVAL_S) + 1
        self._control_plan = structs.replace(
            plan, first=settings.clients + 1, last=settings.clients + settings.control_clients, changes=beats
        )
        self.seen = begun(settings, plan, self._control_plan, former)
        self._arrivals = [self.seen.arrivals, self.seen.control_arrivals]
        self._crowd = Workers(self._crowd_jobs())
        self._control = Workers([self._job(self._control_plan, self._control_plan)])
        self._kafka = KafkaWatch(
            platform.kafka,
            info=platform.topics.info,
            rsp=platform.topics.rsp,
            crowds=self._arrivals,
        )
        self._rows = DatabaseWatch(platform.database, plan=plan, others=tuple)
        self._control_rows = DatabaseWatch(
            platform.database, plan=self._control_plan, others=self._kafka.others, look_s=_CONTROL_LOOK_S
        )
        self._lag = LagWatch(platform.kafka, group=platform.group, topic=platform.topics.info)
        self._broker = BrokerWatch(
            structs.replace(platform.mqtt, cert_file=settings.service_cert_file, key_file=settings.service_key_file)
        )
        self._requests: RequestSample | None = None
        self._deaths_before: int | None = None

    async def run(self) -> None:
        """Raises ``UnavailableError``, ``DatabaseError``, ``CrowdFailedError``: there was no going on."""
        try:
            with self._phase("preflight"):
                await self._preflight()
            with self._phase("sweep"):
                await self._sweep()
            with self._phase("control group alone"):
                await self._begin_control()
            with self._phase("ramp"):
                self.seen.connected = await self._watched(self._crowd.order("connect", Connected))
            with self._phase("flash"):
                await self._flash()
            with self._phase("drain"):
                await self._drain()
                self.seen.drained = True
            with self._phase("control group after"):
                self.seen.marks["drained"] = time.monotonic()
                await asyncio.sleep(self._settings.after_s)
                self.seen.marks["over"] = time.monotonic()
            with self._phase("proof"):
                await asyncio.to_thread(self._prove_rows)
            with self._phase("close"):
                await self._close()
                self.seen.closed = True
            with self._phase("cleanup"):
                await self._cleanup()
        except StopRunError as error:
            self.seen.problems.append(error.reason)

    async def end(self) -> None:
        """Hear what the crowds know, if they can still tell, and stop everything that was started. Bounded.

        The readers of Kafka end first: a group that goes on sending would be seen to send what it has not told of yet.
        """
        await asyncio.to_thread(self._kafka.stop)
        for ask in (self._ask_crowd, self._control_report):
            with contextlib.suppress(CrowdFailedError, TimeoutError):
                await asyncio.wait_for(ask(), _LAST_WORDS_S)
        await asyncio.gather(self._crowd.stop(), self._control.stop(), self._broker.stop())
        for watch in (self._rows, self._control_rows, self._lag):
            await asyncio.to_thread(watch.stop)
        if self._requests is not None:
            self._requests.close()

    def facts(self, problems: Sequence[Reason]) -> Facts:
        """After ``end``; ``problems`` are what cut the run short."""
        seen = self.seen
        seen.applied_ns = self._rows.applied_ns | self._control_rows.applied_ns
        seen.others_s = self._control_rows.others_s
        seen.lag_max, seen.lag_done_s = self._lag.lag_max, self._lag.done_s
        if self._requests is not None:
            seen.requests_asked = len(self._requests.sent_ns)
            seen.requests_s = self._requests.took_s(self._kafka.answered_ns)
            seen.requests_unanswered = self._requests.unanswered(self._kafka.answered_ns)
        if self._kafka.trouble is not None:
            seen.problems.append(Reason(name="kafka_reader_died", word="unknown", sentence=self._kafka.trouble))
        return facts_of(seen, self._settings, problems)

    # --- the phases

    async def _preflight(self) -> None:
        for look in (lambda: missing_certificates(self._settings), lambda: draining(self._platform)):
            reason = await asyncio.to_thread(look)
            if reason is not None:
                raise StopRunError(reason)
        kafka, topics = self._platform.kafka, self._platform.topics
        ends = await asyncio.to_thread(kafka_admin.list_end_offsets, kafka, topics.cmd)
        await asyncio.to_thread(self._kafka.start)
        if self._settings.requests:
            self._requests = RequestSample(kafka, topic=topics.cmd, partitions=len(ends), plan=self._plan)
        self._rows.start()
        self._control_rows.start()
        self._lag.start()
        await self._broker.start()
        self.seen.sys_before = dict(self._broker.before)
        self._deaths_before = await asyncio.to_thread(worker_deaths, self._platform)
        await self._control.start()
        await self._crowd.start()

    async def _sweep(self) -> None:
        """Close what crashed runs left open; the crowd's sessions are not there yet."""
        left = await asyncio.to_thread(self._ask, store.open_sessions)
        if not left:
            return
        swept = await self._crowd.sweep(left)
        _log.warning("%d device sessions of canaries were left open, %d of them are closed now", len(left), swept)
        self.seen.swept, self.seen.unswept = swept, len(left) - swept

    async def _begin_control(self) -> None:
        self.seen.control_connected = await self._control.order("connect", Connected)
        await self._control.order("beat", type(None), interval_s=_CONTROL_INTERVAL_S)
        self.seen.marks["control"] = time.monotonic()
        await asyncio.sleep(self._settings.before_s)
        self.seen.marks["ramp"] = time.monotonic()

    async def _flash(self) -> None:
        settings = self._settings
        asking = None
        if self._requests is not None:
            count = min(settings.requests, settings.clients)
            numbers = random.Random(self._plan.seed).sample(self._plan.numbers, count)  # noqa: S311 - a sample
            asking = asyncio.create_task(self._requests.send(numbers, settings.flash_s), name="requests")
        try:
            took_s = await self._watched(self._crowd.order("flash", float))
            self.seen.flash_s = max(took_s)
            if asking is not None:
                await asking
        finally:
            if asking is not None:
                asking.cancel()  # without effect but for a run that is cut short
        self.seen.marks["flash over"] = time.monotonic()
        self._lag.aim()

    async def _drain(self) -> None:
        """Wait until all that was promised is in Kafka and in its row, the requests answered, the lag 0; or not."""
        await self._ask_crowd()
        deadline_s = time.monotonic() + self._settings.drain_timeout_s
        said_s = 0.0
        while time.monotonic() < deadline_s:
            missing, behind = self.seen.arrivals.missing(self.seen.history), len(self._behind())
            unanswered = 0
            if self._requests is not None:
                self._requests.serve()
                unanswered = self._requests.unanswered(self._kafka.answered_ns).count
            if not (missing or behind or unanswered) and self._lag.done_s is not None:
                return
            if time.monotonic() - said_s > _SAY_S:
                said_s = time.monotonic()
                self._say("drain", {"not in Kafka": missing, "rows behind": behind, "requests open": unanswered})
            await asyncio.sleep(_LOOK_S)
        await self._ask_crowd()

    def _prove_rows(self) -> None:
        """Every row beside what Kafka has of its client; those that are merely behind are counted as such."""
        self.seen.rows_behind = Finding()
        found: dict[int, FoundRow] = self._ask(lambda connection: read_rows(connection, self._plan))
        for number in self._plan.numbers:
            row, highest = found.get(number), self._highest(number)
            self.seen.compared += row is not None
            rev = 0 if row is None else row.rev
            if rev < highest:
                self.seen.rows_behind.add(f"{rae_of(number)}: rev {rev} in its row, {highest} in Kafka")
                continue
            for sentence in differences(self._plan, number, self.seen.arrivals.slots_of(number), row):
                self.seen.wrong_rows.add(sentence)

    async def _close(self) -> None:
        """The crowd closes its device sessions and leaves; then the control group, whose watch is over."""
        lost = self.seen.arrivals.missing(self.seen.history)
        await self._watched(self._crowd.order("close", type(None)))
        await self._ask_crowd()
        await self._control.order("close", type(None))
        await self._control_report()
        deadline_s = time.monotonic() + _CLOSED_S
        while time.monotonic() < deadline_s and (  # noqa: ASYNC110 - what comes is noted by threads
            self.seen.arrivals.missing(self.seen.history) > lost
            or self.seen.control_arrivals.missing(self.seen.control_history)
        ):
            await asyncio.sleep(_LOOK_S)
        closing = {rae_of(number) for crowd in self._arrivals for number in crowd.closed()}
        while True:
            left = await asyncio.to_thread(self._ask, self._still_open)
            if closing.isdisjoint(left) or time.monotonic() > deadline_s:
                break  # who could not say so any more is not waited for
            await asyncio.sleep(_OPEN_LOOK_S)
        for rae in left:
            self.seen.leftovers.add(f"{rae}: its device session is still open")

    async def _cleanup(self) -> None:
        self.seen.cleaned = sum(await self._crowd.order("cleanup", int))
        await self._control.order("cleanup", int)
        self.seen.sys_after = await self._broker.settled(_SYS_S)
        deaths = await asyncio.to_thread(worker_deaths, self._platform)
        if deaths is not None and self._deaths_before is not None:
            self.seen.deaths = max(0, deaths - self._deaths_before)

    # --- what they have in common

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began_s = time.monotonic()
        self._now, self.where = name, f"in its phase {name!r}"
        self._say(name, {})
        try:
            yield
        finally:
            self.took_s[name] = round(time.monotonic() - began_s, 2)

    async def _watched(self, order: Coroutine[Any, Any, list[_T]]) -> list[_T]:
        """Wait for an order of the crowd, saying how far it is."""
        working = asyncio.ensure_future(order)
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=_SAY_S)
                self._say(self._now, self._crowd.progress)
        finally:
            working.cancel()
        return working.result()

    async def _ask_crowd(self) -> None:
        self.seen.told = ()  # an old answer beside newer records would call these wrong
        self.seen.told = await self._crowd.order("report", Told)
        for told in self.seen.told:
            self.seen.history.take(told.part)

    async def _control_report(self) -> None:
        self.seen.control_told = None
        (told,) = await self._control.order("report", Told)
        self.seen.control_history.take(told.part)
        self.seen.control_told = told

    def _ask(self, question: Callable[[Connection], _T]) -> _T:
        with store.connected(self._platform.database) as connection:
            return question(connection)

    def _still_open(self, connection: Connection) -> list[str]:
        return still_open(connection, self._plan) + still_open(connection, self._control_plan)

    def _highest(self, number: int) -> int:
        """The highest rev of a client that Kafka has, of those before ``closed``."""
        return self.seen.arrivals.revs[number - self._plan.first]

    def _behind(self) -> list[int]:
        """Clients whose row has not what Kafka has."""
        revs = self._rows.revs
        return [number for number in self._plan.numbers if revs.get(number, 0) < self._highest(number)]

    def _crowd_jobs(self) -> list[Job]:
        plan = self._plan
        processes = self._settings.processes or os.cpu_count() or 1
        return [self._job(plan.part(first, last), plan) for first, last in shares(plan.first, plan.last, processes)]

    def _job(self, part: Plan, whole: Plan) -> Job:
        settings, mqtt = self._settings, self._platform.mqtt
        is_control = whole is not self._plan
        probes = [] if is_control else probing(whole, settings.probes)
        return Job(
            plan=part,
            whole_first=whole.first,
            whole_last=whole.last,
            host=mqtt.host,
            port=mqtt.port,
            ca_file=mqtt.ca_file,
            certificates_dir=settings.certificates_dir,
            ramp="linear" if is_control else settings.ramp,
            ramp_s=_CONTROL_RAMP_S if is_control else settings.ramp_s,
            profile=settings.profile,
            flash_s=settings.flash_s,
            probes=[number for number in probes if number in part.numbers],
            connect_timeout_s=settings.connect_timeout_s,
            began_ns=self._began_ns,
        )
