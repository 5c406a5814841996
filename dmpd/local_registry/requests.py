"""Requests to one RAE, from MQTT to the response: noted on the disk, acknowledged, run once, answered.

new → on the disk → PUBACK and ``accepted`` → its turn (one at a time per device session) → run → result and response in
one transaction with what it changed. A request that is known already is answered with what came of it. Refusals leave
no trace: nothing of them runs, however often they come. Nothing runs after its deadline.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from dmpd.local_registry import metrics
from dmpd.local_registry.journal import Journal, utc_now
from dmpd.local_registry.request_rules import Lateness, RefusedError, admit
from dmpd.local_registry.request_table import Quota, RequestEntry, Verdict
from dmpd.local_registry.settings import RequestSettings
from dmpd.local_registry.store import StoreError
from dmpd.local_registry.verbs import FailedError, Verbs
from dmpd.model.codec import InvalidMessageError, decode, encode
from dmpd.model.limits import TEXT_LENGTH_MAX
from dmpd.model.messages import Outcome, Request, Response
from dmpd.model.requests import RAE_VERBS, SESSION_VERBS, Args
from dmpd.model.topics import Topic, rsp_topic
from dmpd.runtime.mqtt import Message

RESULT_BYTES_MAX: Final = 4096

Reply = Callable[[str, bytes], None]
"""Publishes ``(topic, payload)`` once, without an outbox row."""

_log = logging.getLogger(__name__)


class _Job(NamedTuple):
    """One admitted request."""

    requester: str
    request: Request
    args: Args
    deadline_s: float
    received_ms: int

    @property
    def entry(self) -> RequestEntry:
        request = self.request
        return RequestEntry(self.requester, request.id, request.session, request.verb, self.received_ms)


class _Arrival(NamedTuple):
    """One message; ``job`` is None if there is nothing to note of it. ``ack`` sends its PUBACK, in receive order."""

    job: _Job | None
    ack: Callable[[], None]


class Requests:
    """All requests of one RAE. On its event loop; ``receive`` does not block. Ends by ``drain``."""

    def __init__(
        self,
        rae: str,
        settings: RequestSettings,
        *,
        journal: Journal,
        verbs: Verbs,
        reply: Reply,
        answered: Callable[[], None],
    ) -> None:
        """Wire it.

        Args:
            rae: Its serial.
            settings: Who may ask for what.
            journal: Where requests and responses are kept.
            verbs: Executes.
            reply: For what is no outbox row: ``accepted``, refusals, repeated answers.
            answered: Called when a final response waits for the next commit.
        """
        self._rae = rae
        self._settings = settings
        self._journal = journal
        self._verbs = verbs
        self._reply = reply
        self._answered = answered
        self._quota = Quota(settings.per_requester_max, settings.remembered_max)
        self._arrived: deque[_Arrival] = deque()
        self._arrival = asyncio.Event()
        self._queues: dict[str, deque[_Job]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(settings.at_once_max)
        self._lateness = Lateness(time.monotonic())
        self._stopping = False
        self.open = 0
        """Accepted and not yet answered for good."""

    def alive(self, now_s: float) -> None:
        """To be called about each second; see ``Lateness``."""
        self._lateness.alive(now_s)

    def receive(self, message: Message, topic: Topic, ack: Callable[[], None]) -> None:
        """Take in one message from a ``cmd`` topic of ours. While draining it is left to whoever repeats it."""
        if not self._stopping:
            self._arrived.append(_Arrival(self._job_of(message, topic), ack))
            self._arrival.set()

    def _job_of(self, message: Message, topic: Topic) -> _Job | None:
        assert topic.requester is not None
        if message.retain:
            self._ignored("retained", topic)
            return None
        try:
            request = decode(message.payload, topic)
        except InvalidMessageError as error:
            self._ignored(str(error), topic)
            return None
        assert isinstance(request, Request)
        deadline_s = self._lateness.deadline_s(message.expiry_s, time.monotonic())
        try:
            args = admit(request, topic.requester, self._settings, blind_s=self._journal.answers.blind_s(time.time()))
            self._check_room()
        except RefusedError as error:
            self._refuse(topic.requester, request, str(error))
            return None
        return _Job(topic.requester, request, args, deadline_s, time.time_ns() // 1_000_000)

    async def run(self) -> None:
        """Bring what arrives to the disk, all that is there as one transaction, and set it going. To be cancelled."""
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            arrived = [self._arrived.popleft() for _ in range(len(self._arrived))]
            await self._note([one.job for one in arrived if one.job is not None])
            for one in arrived:
                one.ack()

    async def _note(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            verdicts = await self._journal.accept([job.entry for job in jobs], self._quota)
        except StoreError as error:
            for job in jobs:
                self._refuse(job.requester, job.request, f"the RAE cannot keep requests now: {error}")
            return
        for job, verdict in zip(jobs, verdicts, strict=True):
            self._begin(job, verdict)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more and let what was accepted end; what is not done in time is ``interrupted``."""
        self._stopping = True
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        left = list(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _check_room(self) -> None:
        waiting = self.open + len(self._arrived)
        if waiting >= self._settings.waiting_max:
            raise RefusedError(f"{waiting} requests wait already; ask again later")

    def _begin(self, job: _Job, verdict: Verdict) -> None:
        if verdict.kind == "over_quota":
            self._refuse(job.requester, job.request, "too many requests within 24 h")
        elif verdict.kind == "known":
            assert verdict.stored is not None
            self._repeat(job, verdict.stored)
        else:
            self._say(job.requester, job.request, "accepted")
            self.open += 1
            metrics.requests_open.inc()
            queue = self._queues.get(job.request.session)
            if queue is not None:
                queue.append(job)
                return
            self._queues[job.request.session] = deque([job])
            task = asyncio.create_task(self._work(job.request.session), name=f"requests of {job.request.session}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _repeat(self, job: _Job, stored: RequestEntry) -> None:
        metrics.requests_repeated.inc()
        request = job.request
        if (stored.session, stored.verb) != (request.session, request.verb):
            self._refuse(job.requester, request, f"this id was used for {stored.verb} of {stored.session}")
        elif stored.response is None:
            self._say(job.requester, request, "accepted")
        else:
            topic = Topic(self._rae, stored.session, "rsp", stored.requester)
            response: Any = decode(stored.response, topic)
            again = msgspec.structs.replace(response, seq=None, epoch=self._journal.epoch)
            self._reply(str(topic), encode(again))

    async def _work(self, session: str) -> None:
        """The requests of one device session, one after the other, until none waits."""
        queue = self._queues[session]
        try:
            while queue:
                job = queue.popleft()
                try:
                    await self._one(job)
                except asyncio.CancelledError:
                    self._finish(job, "interrupted", error="the RAE's program ended before this was done")
                    raise
        finally:
            for job in queue:  # only when cancelled
                self._finish(job, "interrupted", error="the RAE's program ended before this was begun")
            del self._queues[session]

    async def _one(self, job: _Job) -> None:
        async with self._slots:
            left_s = job.deadline_s - time.monotonic()
            if left_s <= 0:
                self._finish(job, "expired", error="its turn came after its lifetime")
                return
            try:
                async with asyncio.timeout(left_s):
                    result = await self._verbs.run(job.request, job.args)
            except RefusedError as error:
                self._finish(job, "refused", error=str(error))
            except FailedError as error:
                self._finish(job, "failed", error=str(error))
            except TimeoutError:
                self._finish(job, "failed", error="not done when its lifetime ended")
            except Exception as error:  # counted by outcome, logged, told: one request must not end the RAE
                _log.exception("%s: %s failed", self._rae, job.request.verb)
                self._finish(job, "failed", error=f"internal error: {type(error).__name__}")
            else:
                self._finish(job, "done", result=result)

    def _finish(self, job: _Job, outcome: Outcome, *, result: object = None, error: str | None = None) -> None:
        self.open -= 1
        metrics.requests_open.dec()
        response = self._response(job.request, outcome, result=result, error=error)
        metrics.requests.labels(job.request.verb, response.outcome).inc()
        self._journal.answers.add(job.entry, response)
        self._answered()

    def _response(
        self, request: Request, outcome: Outcome, *, result: object = None, error: str | None = None
    ) -> Response:
        response = Response(
            v=1,
            rae=self._rae,
            session=request.session,
            at=utc_now(),
            epoch=self._journal.epoch,
            id=request.id,
            outcome=outcome,
            result=Raw(msgspec.json.encode(result)),
            error=None if error is None else _clean(error),
        )
        try:
            if len(encode(response)) <= RESULT_BYTES_MAX + 2 * TEXT_LENGTH_MAX:
                return response
            why = "too large"
        except InvalidMessageError as refusal:  # what a device said goes into results
            why = str(refusal)
        return msgspec.structs.replace(response, result=Raw(b"null"), error=f"its result cannot be told: {why}"[:200])

    def _refuse(self, requester: str, request: Request, why: str) -> None:
        verb = request.verb if request.verb in SESSION_VERBS | RAE_VERBS else "unknown"
        metrics.requests.labels(verb, "refused").inc()
        self._say(requester, request, "refused", error=why)

    def _say(self, requester: str, request: Request, outcome: Outcome, *, error: str | None = None) -> None:
        response = self._response(request, outcome, error=error)
        self._reply(rsp_topic(self._rae, request.session, requester), encode(response))

    def _ignored(self, why: str, topic: Topic) -> None:
        """What is no request, or nobody's wish of now, gets no answer: there is no id, or nobody who waits."""
        metrics.messages_ignored.inc()
        _log.debug("%s: ignored a message on %s: %s", self._rae, topic, why)


def _clean(text: str) -> str:
    return "".join(letter for letter in text[: TEXT_LENGTH_MAX // 2] if letter.isprintable())
