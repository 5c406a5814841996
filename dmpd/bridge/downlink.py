"""Requests from ``dmp.cmd`` to the RAEs, over the uplink's connection, each until it is answered or over.

A record is done, and may be committed, when a response to it stands in ``dmp.rsp``, whoever said it: the RAE, or the
bridge in its place (``expired``, ``refused``); or when it stands among the dead letters. The decisions are made in
``pending`` and ``requests``, the threads are ``feed``'s. After a restart nothing is answered twice differently: what
``dmp.rsp`` holds is read first.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from dmpd.bridge import metrics as bridge_metrics
from dmpd.bridge import request_metrics as metrics
from dmpd.bridge.feed import CLOCKS_APART_MS, Feed, Sink
from dmpd.bridge.pending import Frontier, Key, Pending, PendingRequest, Place
from dmpd.bridge.records import Outgoing
from dmpd.bridge.requests import answer_for, answered_by, letter_of, request_of
from dmpd.bridge.settings import BridgeSettings
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Outcome
from dmpd.runtime.kafka import ProducerQueueFullError, RecordProducer, is_record_fault
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.runtime.mqtt import MqttUnreachableError
from dmpd.runtime.settings import TopicSettings

GROUP: Final = "dmpd-bridge"
IN_FLIGHT_MAX: Final = 64
SAY_AGAIN_S: Final = 10.0
"""An answer in a RAE's place that was not seen in Kafka so long is given again."""
COMMIT_AGAIN_S: Final = 30.0
ASKED_AGAIN_MS: Final = 10_000
"""An answer so long before a request that lives is none to it."""

_log = logging.getLogger(__name__)


class Client(Protocol):
    """What this module uses of the uplink's connection."""

    server_receive_maximum: int

    def publish(self, topic: str, payload: bytes, *, qos: int, expiry_s: int | None = None) -> int: ...


class _Said(NamedTuple):
    """An answer in a RAE's place that has not been seen in ``dmp.rsp`` yet."""

    key: Key
    record: Outgoing
    again_at_s: float


class _Letter(NamedTuple):
    """A record that goes to no RAE, and is not among the dead letters yet."""

    record: ReadRecord
    error: InvalidMessageError
    again_at_s: float


class Downlink(Sink):
    """From ``start`` to ``stop``; everything on the event loop. ``status`` alone may be called from other threads."""

    def __init__(
        self,
        settings: BridgeSettings,
        *,
        topics: TopicSettings,
        partitions: Mapping[str, int],
        make_feed: Callable[[Sink], Feed],
        make_producer: Callable[[], RecordProducer],
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._partitions = partitions
        self._make_feed = make_feed
        self._make_producer = make_producer
        self._producer: RecordProducer | None = None
        self._feed: Feed | None = None
        self._client: Client | None = None
        self._in_flight: set[int] = set()
        self._limit = IN_FLIGHT_MAX
        self._pending = Pending(per_rae_max=settings.requests_per_rae_max)
        self._frontier = Frontier()
        self._answered: dict[Key, int] | None = {}
        """What ``dmp.rsp`` answers, and when last (ms, by the records' timestamps); needed until all that stood in
        ``dmp.cmd`` at the start was taken, then None."""
        self._said: dict[Place, _Said] = {}
        self._said_places: dict[Key, list[Place]] = {}
        """Of ``_said``: after an outage there may be thousands, and each is looked for when it is seen."""
        self._letters: dict[Place, _Letter] = {}
        self._since_s: dict[Place, float] = {}
        self._committed_s = 0.0
        self._failure: Exception | None = None
        self.problem: str | None = "dmp.cmd was not read yet"
        """Why no requests are carried, for status and readiness; None while all is well."""

    def start(self) -> None:
        """Begin to read. On the event loop."""
        self._producer = self._make_producer()
        self._feed = self._make_feed(self)

    async def stop(self) -> None:
        """End, within some seconds; what is not done is taken up by the next bridge. Harmless twice."""
        self.detached()
        feed, self._feed = self._feed, None
        producer, self._producer = self._producer, None
        if feed is not None:
            feed.commit(self._frontier.to_commit())
            await asyncio.to_thread(feed.close)
        if producer is not None:
            producer.close()

    def status(self) -> dict[str, Any]:
        """For ``/status``; approximate, from any thread."""
        return {"problem": self.problem, "pending": len(self._pending), "in_flight": len(self._in_flight)}

    # --- the connection, as the uplink tells it

    def attached(self, client: Client) -> None:
        """There is a connection. What an earlier one carried is repeated in its turn."""
        self._client = client
        self._in_flight.clear()
        self._limit = max(1, min(IN_FLIGHT_MAX, client.server_receive_maximum))
        self._send(time.monotonic())

    def detached(self) -> None:
        """There is none any more."""
        self._client = None
        self._in_flight.clear()

    def puback(self, mid: int, reason_code: int) -> None:
        """The broker answered one of our publishes: it proves nothing but makes room for the next."""
        if mid not in self._in_flight:
            return
        was_full = len(self._in_flight) >= self._limit
        self._in_flight.discard(mid)
        metrics.request_pubacks.labels(f"0x{reason_code:02x}").inc()
        if reason_code >= 0x80:
            _log.warning("the broker refused a request with 0x%02x", reason_code)
        if was_full:
            self._send(time.monotonic())

    # --- what the feed reads

    def trouble(self, sentence: str | None) -> None:
        if sentence != self.problem and sentence is not None:
            _log.warning("requests are not carried: %s", sentence)
        self.problem = sentence

    def failed(self, error: Exception) -> None:
        self._failure = error

    def requests(self, records: Sequence[ReadRecord], *, live: bool) -> None:
        now_s, wall_s = time.monotonic(), time.time()
        raes: dict[str, None] = {}
        for record in records:
            self._frontier.taken(Place(record.partition, record.offset))
            try:
                request = request_of(record, now_s=now_s, wall_s=wall_s)
            except InvalidMessageError as error:
                self._bury(record, error, now_s=now_s)
                continue
            self._since_s[request.place] = now_s
            raes[request.key.rae] = None
            self._take(request, now_s, asked_ms=record.timestamp_ms)
        if live:
            self._answered = None
        self._send(now_s, raes)
        self._hold_or_flow()

    def responses(self, records: Sequence[ReadRecord]) -> None:
        now_s = time.monotonic()
        raes: dict[str, None] = {}
        for record in records:
            key = answered_by(record)
            if key is None:
                continue
            if self._answered is not None:
                self._answered[key] = max(record.timestamp_ms, self._answered.get(key, -1))
            for place in self._pending.answered(key, now_s):
                metrics.requests.labels("answered").inc()
                metrics.request_seconds.observe(now_s - self._since_s[place])
                self._done(place)
            for place in self._said_places.pop(key, []):
                del self._said[place]
                self._done(place)
            raes[key.rae] = None
        self._send(now_s, raes)
        self._hold_or_flow()

    def _take(self, request: PendingRequest, now_s: float, *, asked_ms: int) -> None:
        if self._was_answered(request, now_s, asked_ms):
            metrics.requests.labels("answered_before").inc()
            self._done(request.place)
        elif request.deadline_s <= now_s:
            why = f"it was {request.lifetime_s} s old when it was taken from Kafka"
            self._say(request, "expired", why, now_s=now_s)
        elif not self._pending.add(request):
            why = f"{self._settings.requests_per_rae_max} requests wait for this RAE already"
            self._say(request, "refused", why, now_s=now_s)

    def _was_answered(self, request: PendingRequest, now_s: float, asked_ms: int) -> bool:
        """Whether the last bridge saw this record to its end.

        An answer of long before it was asked is another record's: its id is asked again. One that lives and is sent
        once too often, as the clocks of Kafka and of the bridge are apart, brings the same answer; of one whose
        lifetime is over nobody may say ``expired`` after the RAE has answered.
        """
        answered_ms = None if self._answered is None else self._answered.get(request.key)
        if answered_ms is None:
            return False
        apart_ms = ASKED_AGAIN_MS if now_s < request.deadline_s else CLOCKS_APART_MS
        return answered_ms >= asked_ms - apart_ms

    def _done(self, place: Place) -> None:
        self._since_s.pop(place, None)
        self._frontier.done(place)

    def _hold_or_flow(self) -> None:
        if self._feed is not None:
            unfinished = len(self._pending) + len(self._said) + len(self._letters)
            self._feed.hold(held=unfinished >= self._settings.requests_max)

    # --- to the broker

    def _send(self, now_s: float, raes: Mapping[str, None] | None = None) -> None:
        """Publish what is due, of these RAEs or of all, as far as the broker's window lets."""
        client = self._client
        room = self._limit - len(self._in_flight)
        if client is None or room <= 0:
            return
        for request in self._pending.due(now_s, raes=raes, room=room):
            try:
                mid = client.publish(request.topic, request.payload, qos=1, expiry_s=_left_s(request, now_s))
            except MqttUnreachableError as error:
                _log.debug("a request was not published: %s", error)
                self._pending.unsent(request)
                continue
            self._in_flight.add(mid)
            metrics.requests.labels("published").inc()

    # --- to Kafka

    def _say(self, request: PendingRequest, outcome: Outcome, error: str, *, now_s: float) -> None:
        """Answer in the RAE's place; done when that is seen in ``dmp.rsp``."""
        metrics.requests.labels(outcome).inc()
        record = answer_for(
            request,
            outcome,
            error,
            at=datetime.now(UTC),
            topics=self._topics,
            partitions=self._partitions[self._topics.rsp],
        )
        self._said_places.setdefault(request.key, []).append(request.place)
        self._said[request.place] = _Said(request.key, record, now_s + SAY_AGAIN_S)
        self._produce(record, _report_of_answer)

    def _bury(self, record: ReadRecord, error: InvalidMessageError, *, now_s: float, truncated: bool = False) -> None:
        place = Place(record.partition, record.offset)
        if place not in self._letters:
            metrics.requests.labels("dead_letter").inc()
            bridge_metrics.dead_letters.labels(error.reason).inc()
            _log.warning("dead letter (%s): a record of %s, key %r", error, record.topic, (record.key or b"")[:128])
        self._letters[place] = _Letter(record, error, now_s + SAY_AGAIN_S)
        letter = letter_of(record, error, at=datetime.now(UTC), topics=self._topics, truncated=truncated)

        def report(refusal: str | None) -> None:
            if refusal is None:
                if self._letters.pop(place, None) is not None:  # once is enough
                    self._done(place)
                    self._hold_or_flow()
            elif is_record_fault(refusal) and not truncated:
                self._bury(record, error, now_s=now_s, truncated=True)
            else:  # Kafka's fault: given again in time
                _log.error("dead letter of %s %d/%d: %s", record.topic, record.partition, record.offset, refusal)

        self._produce(letter, report)

    def _produce(self, record: Outgoing, report: Callable[[str | None], None]) -> None:
        if self._producer is None:  # stopped meanwhile
            return
        try:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                partition=record.partition,
                on_delivery=report,
            )
        except ProducerQueueFullError:  # given again in time
            _log.debug("the producer's queue is full")

    # --- time

    def tick(self, now_s: float) -> None:
        """What is due by time alone; call it ten times a second.

        Raises:
            RuntimeError: The feed died of an error of ours.
        """
        if self._failure is not None:
            raise RuntimeError("requests are not read any more") from self._failure
        if self._producer is None:
            return
        self._producer.poll(0)
        for request in self._pending.over(now_s):
            self._say(request, "expired", f"no answer from the RAE within {request.lifetime_s} s", now_s=now_s)
        self._send(now_s)
        self._say_again(now_s)
        self._commit(now_s)
        self._hold_or_flow()
        metrics.requests_pending.set(len(self._pending))

    def _say_again(self, now_s: float) -> None:
        assert self._producer is not None
        fatal = self._producer.fatal
        if fatal is not None:
            _log.error("Kafka: %s; a new producer", fatal)
            self._producer.close()
            self._producer = self._make_producer()
        for place, said in self._said.items():
            if fatal is not None or now_s >= said.again_at_s:
                self._said[place] = said._replace(again_at_s=now_s + SAY_AGAIN_S)
                self._produce(said.record, _report_of_answer)
        for letter in list(self._letters.values()):
            if fatal is not None or now_s >= letter.again_at_s:
                self._bury(letter.record, letter.error, now_s=now_s)

    def _commit(self, now_s: float) -> None:
        if now_s - self._committed_s > COMMIT_AGAIN_S:  # one may have been lost
            self._committed_s = now_s
            self._frontier.again()
        positions = self._frontier.to_commit()
        if positions and self._feed is not None:
            self._feed.commit(positions)


def _left_s(request: PendingRequest, now_s: float) -> int:
    """What is left of its life in whole seconds, as MQTT counts; rounded down, so that the RAE does not begin late."""
    return max(1, int(request.deadline_s - now_s))


def _report_of_answer(refusal: str | None) -> None:
    """That Kafka has it is seen in ``dmp.rsp``; else it is given again."""
    if refusal is not None:
        bridge_metrics.undelivered.inc()
        _log.error("an answer in a RAE's place: %s; given again in %g s", refusal, SAY_AGAIN_S)
