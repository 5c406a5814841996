"""MQTT to Kafka: a message is acknowledged to the broker after Kafka has it, never before.

One connection after the other, always into the same broker session. What is in flight when a connection or a producer
ends is acknowledged by nobody, so the broker delivers it again: duplicates, no loss. The decisions are made in
``acks``, ``durable``, ``gate`` and ``records``.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from dmpd.bridge import metrics
from dmpd.bridge.acks import AckFrontier
from dmpd.bridge.blame import Blame
from dmpd.bridge.delivery import Delivery, Flight
from dmpd.bridge.durable import DurableAcks, StoredRows
from dmpd.bridge.gate import Gate, GateState
from dmpd.bridge.records import Outgoing, dead_letter, record_of
from dmpd.bridge.settings import BridgeSettings
from dmpd.model.codec import encode
from dmpd.model.messages import Durable
from dmpd.model.topics import RAE_SESSION, ack_topic
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.kafka import RecordProducer, is_record_fault
from dmpd.runtime.mqtt import SESSION_TAKEN_OVER, Message, MqttRefusedError, MqttUnreachableError
from dmpd.runtime.settings import MqttSettings, TopicSettings

CLIENT_ID: Final = "svc-bridge"
FILTERS: Final = ("dmp/v1/+/+/info", "dmp/v1/+/+/rsp/+")
TICK_S: Final = 0.1
STABLE_S: Final = 60.0
DEAD_LOG_S: Final = 1.0
CAREFUL_S: Final = 600.0
"""For so long records go one by one after a refused batch, if the one at fault does not come again."""

_log = logging.getLogger(__name__)


class Client(Protocol):
    """What this module uses of ``runtime.mqtt.MqttClient`` and its in-memory twin."""

    session_present: bool
    closed: "asyncio.Future[str]"
    close_reason_code: int

    async def subscribe(self, filters: Sequence[str], *, qos: int = 1, retain_handling: int = 1) -> list[int]: ...
    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int: ...
    def ack_all(self, messages: Sequence[Message]) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    async def disconnect(self, *, reason_code: int = 0) -> None: ...
    def abort(self) -> None: ...


Connect = Callable[..., Awaitable[Client]]
"""``MqttClient.connect``, or that of the in-memory broker."""


class MakeProducer(Protocol):
    """Makes one producer, which must not let a record pass one that was refused: it fails for good instead."""

    def __call__(self, *, one_by_one: bool) -> RecordProducer:
        """``one_by_one``: each record in a batch of its own."""


class Passenger(Protocol):
    """Who else uses the connection: the downlink. A name has one connection only."""

    def attached(self, client: Any) -> None: ...
    def detached(self) -> None: ...
    def puback(self, mid: int, reason_code: int) -> None: ...


class Uplink:
    """Runs until ``stop``. Everything happens on the loop's thread; only ``status`` may be called from others."""

    def __init__(
        self,
        settings: BridgeSettings,
        *,
        mqtt: MqttSettings,
        topics: TopicSettings,
        partitions: Mapping[str, int],
        connect: Connect,
        make_producer: MakeProducer,
        random: Callable[[], float],
        passenger: Passenger | None = None,
    ) -> None:
        self._settings = settings
        self._passenger = passenger
        self._mqtt = mqtt
        self._topics = topics
        self._partitions = partitions
        self._connect = connect
        self._make_producer = make_producer
        self._gate = Gate(
            bytes_max=settings.in_flight_bytes_max,
            messages_max=settings.in_flight_messages_max,
            leave_after_s=mqtt.keepalive_s / 2,
        )
        self._acks: AckFrontier[Message] = AckFrontier()
        self._durable = DurableAcks(delay_s=settings.durable_delay_s, rows_max=settings.durable_rows_max)
        self._trouble = Backoff(settings.retry_first_s, settings.retry_max_s, random=random)
        self._takeovers = Backoff(settings.takeover_retry_first_s, settings.takeover_retry_max_s, random=random)
        self._tally = metrics.Tally()
        self._blame = Blame(careful_s=CAREFUL_S)
        self._delivery: Delivery | None = None
        self._producer_failure = ""
        self._dead_logged_s: dict[str, float] = {}
        self._client: Client | None = None
        self._early: list[Message] = []
        self._reading = True
        self._paused = False
        self._emptying = False
        self._left_for_kafka = False
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self.problem: str | None = "not connected yet"
        """Why nothing flows, for status and readiness; None while all is well."""

    def status(self) -> dict[str, Any]:
        """A snapshot for ``/status``; approximate, from any thread."""
        now_s = time.monotonic()
        return {
            "connected": self._client is not None,
            "problem": self.problem,
            "in_flight_messages": self._gate.messages,
            "in_flight_bytes": self._gate.bytes,
            "unacknowledged": len(self._acks),
            "puback_age_s": round(self._acks.oldest_age_s(now_s), 3),
            "gate": self._gate.state(now_s).value,
            "paused_s": round(self._gate.closed_s(now_s), 3),
        }

    async def run(self) -> None:
        """Connect, carry, reconnect with backoff. Never raises for the network's or Kafka's sake; ends by ``stop``."""
        ticking = asyncio.create_task(self._ticks(), name="bridge ticks")
        try:
            while not self._stop.is_set():
                if self._delivery is None:
                    self._new_producer()
                await self._wait(self._may_connect)
                if self._stop.is_set():
                    break
                delay_s = await self._one_connection()
                if delay_s > 0:
                    await self._wait(lambda: False, timeout_s=delay_s)
        finally:
            ticking.cancel()
            if self._delivery is not None:
                self._delivery.close()

    def stop(self) -> None:
        """Make ``run`` end; what is unacknowledged stays with the broker. ``drain`` first for a graceful end."""
        self._stop.set()
        self._changed.set()
        if self._client is not None and not self._client.closed.done():
            self._client.abort()

    async def drain(self, timeout_s: float, *, hurry: Callable[[], bool] = lambda: False) -> int:
        """Stop reading, acknowledge what Kafka confirms in time, tell the RAEs, leave the session to the next bridge.

        Args:
            timeout_s: How long to wait for Kafka.
            hurry: Asked repeatedly; True ends the wait at once.

        Returns:
            How many messages stay unacknowledged; the broker delivers them again.
        """
        self._reading = False
        client = self._client
        if client is None or client.closed.done():
            self.stop()
            return 0
        self._read_or_pause()
        await self._wait(
            lambda: not self._acks or client.closed.done() or hurry(), timeout_s=timeout_s, even_stopped=True
        )
        left = len(self._acks)
        self._stop.set()
        if not client.closed.done():
            for ack in self._durable.take_all():
                self._tell(ack)
            await client.disconnect()
        self.stop()
        return left

    # --- connections

    def _may_connect(self) -> bool:
        return self._has_no_producer() or self._gate.state(time.monotonic()) is GateState.OPEN

    async def _one_connection(self) -> float:
        """From connect to its end; returns how long to wait before the next one, in seconds."""
        if self._has_no_producer():
            return self._failed("producer", self._producer_failure)
        epoch = self._acks.new_connection()
        self._early.clear()
        self._left_for_kafka = self._paused = False
        try:
            client = await self._connect(
                self._mqtt,
                client_id=CLIENT_ID,
                clean_start=False,
                session_expiry_s=self._settings.session_expiry_s,
                will=None,
                on_message=functools.partial(self._on_message, epoch),
                on_puback=self._on_puback,
                receive_maximum=self._settings.receive_maximum,
            )
        except MqttRefusedError as error:
            return self._failed("refused", str(error), error.reason_code)
        except MqttUnreachableError as error:
            return self._failed("unreachable", str(error))
        self._client = client
        metrics.connected.set(1)
        try:
            return await self._serve(client)
        finally:
            if self._passenger is not None:
                self._passenger.detached()
            self._client = None
            metrics.connected.set(0)

    async def _serve(self, client: Client) -> float:
        if self._stop.is_set():
            client.abort()
            return 0
        if self._has_no_producer():  # it failed while we connected
            client.abort()
            return self._failed("producer", self._producer_failure)
        self._read_or_pause()
        early, self._early = self._early, []
        self._acknowledge(early)
        try:
            codes = await asyncio.wait_for(client.subscribe(FILTERS), self._mqtt.connect_timeout_s)
        except (TimeoutError, MqttUnreachableError) as error:
            client.abort()
            return self._failed("unreachable", f"no answer to SUBSCRIBE: {error}", client.close_reason_code)
        if any(code >= 0x80 for code in codes):
            await client.disconnect()
            return self._failed("refused", f"SUBSCRIBE was refused: {codes}", max(codes))
        metrics.connects.labels("connected").inc()
        _log.info("connected, session %s", "resumed" if client.session_present else "new")
        self.problem = None
        if self._passenger is not None:
            self._passenger.attached(client)
        began_s = time.monotonic()
        why = await asyncio.shield(client.closed)
        if self._stop.is_set():
            return 0
        if self._left_for_kafka:
            self.problem = "Kafka does not answer; left the broker until it does"
            return 0
        if self._has_no_producer():
            return self._failed("producer", self._producer_failure)
        if time.monotonic() - began_s > STABLE_S:
            self._trouble.reset()
            self._takeovers.reset()
        return self._failed("lost", why, client.close_reason_code)

    def _failed(self, outcome: str, sentence: str, reason_code: int = 0) -> float:
        metrics.connects.labels(outcome).inc()
        taken_over = reason_code == SESSION_TAKEN_OVER  # two bridges must not fight over the name
        delay_s = (self._takeovers if taken_over else self._trouble).next_s()
        hint = "; does a second bridge run?" if taken_over else ""
        _log.warning("connection %s: %s%s; again in %.1f s", outcome, sentence, hint, delay_s)
        self.problem = sentence
        return delay_s

    # --- messages in

    def _on_message(self, epoch: int, message: Message) -> None:
        if epoch != self._acks.epoch or self._delivery is None:
            return
        now_s = time.monotonic()
        tally = self._tally
        tally.received += 1
        if message.dup:
            tally.redelivered += 1
        if message.retain:
            tally.retained += 1
        ticket = self._acks.received(message, now_s)
        record = record_of(message, self._topics, partitions=self._partitions, now_s=time.time())
        if record is None:
            tally.strangers += 1
            self._acknowledge(self._acks.stored(ticket))
            return
        if self._blame.condemned and record.reason is None:
            record = self._judged(record, now_s)
        if record.reason is not None:
            self._count_dead(record.reason, message.topic)
        self._delivery.send(Flight(record, ticket, now_s))
        if not self._gate.is_open:
            self._read_or_pause()

    def _judged(self, record: Outgoing, now_s: float) -> Outgoing:
        """``record``, or its dead letter if it is the one that Kafka refused alone."""
        sentence = self._blame.sentence_for(record.key, record.value)
        if sentence is None:
            return record
        self._blame.found(now_s)
        return dead_letter(record, self._topics, reason="undeliverable", detail=sentence)

    def _on_puback(self, mid: int, reason_code: int) -> None:
        if self._passenger is not None:  # what the uplink itself publishes goes at QoS 0
            self._passenger.puback(mid, reason_code)

    def _count_dead(self, reason: str, topic: str) -> None:
        metrics.dead_letters.labels(reason).inc()
        now_s = time.monotonic()
        if now_s - self._dead_logged_s.get(reason, -DEAD_LOG_S) < DEAD_LOG_S:
            return  # the metric counts them all; the log is no target for a flood
        self._dead_logged_s[reason] = now_s
        _log.warning("dead letter (%s): a message on %r", reason, topic[:256])

    def _read_or_pause(self) -> None:
        """Bring the socket to what the gate and a drain want."""
        client = self._client
        if client is None or client.closed.done():
            return
        state = self._gate.state(time.monotonic())
        wanted = state is not GateState.OPEN or not self._reading or self._emptying
        if wanted != self._paused:
            self._paused = wanted
            if wanted:
                client.pause_reading()
            else:
                client.resume_reading()
        if state is GateState.LEAVE and self._reading and not self._left_for_kafka:
            self._left_for_kafka = True
            _log.warning("Kafka has not confirmed for long: leaving the broker; its session keeps what comes")
            self._spawn_disconnect(client)

    def _spawn_disconnect(self, client: Client) -> None:
        task = asyncio.create_task(client.disconnect(), name="leave the broker")
        task.add_done_callback(functools.partial(_end_of_disconnect, client))

    # --- reports back

    def _on_reports(self, flights: list[Flight]) -> None:
        now_s = time.monotonic()
        delivery = self._delivery
        if delivery is None:
            return
        if any(flight.error is not None for flight in flights):
            flights = self._without_refused(delivery, flights, now_s)
        ready: list[Message] = []
        for flight in flights:
            ready += self._stored(flight, now_s)
        self._acknowledge(ready)
        self._read_or_pause()
        self._changed.set()

    def _stored(self, flight: Flight, now_s: float) -> list[Message]:
        self._tally.delivered[flight.record.topic] += 1
        metrics.delivery_seconds.observe(now_s - flight.received_s)
        row = flight.record.row
        if row is not None:
            ack = self._durable.stored(row.rae, row.epoch, row.seq, now_s=now_s)
            if ack is not None:
                self._tell(ack)
        if flight.ticket.epoch != self._acks.epoch:
            self._tally.late_reports += 1
        return self._acks.stored(flight.ticket)

    def _without_refused(self, delivery: Delivery, flights: list[Flight], now_s: float) -> list[Flight]:
        """Those that Kafka has. What the client refused goes out as dead letters; else all begins anew."""
        stored = [flight for flight in flights if flight.error is None]
        refused = [flight for flight in flights if flight.error is not None]
        metrics.undelivered.inc(len(refused))
        faults = [one for one in refused if one.record.reason is None and is_record_fault(one.error or "")]
        if len(faults) == len(refused) and all(one.refused_by_client for one in faults):
            for flight in faults:
                self._send_as_dead_letter(delivery, flight)
            return stored
        if faults:
            first = faults[0]
            self._blame.refused(first.record.key, first.record.value, first.error or "", now_s)
        self._begin_anew(delivery.fatal or f"{refused[0].record.topic}: {refused[0].error}")
        return stored

    def _send_as_dead_letter(self, delivery: Delivery, flight: Flight) -> None:
        """For a record that never left the client: nothing that came behind it is affected."""
        self._count_dead("undeliverable", flight.record.key.decode(errors="replace"))
        record = dead_letter(flight.record, self._topics, reason="undeliverable", detail=flight.error or "")
        delivery.send(Flight(record, flight.ticket, flight.received_s))

    def _acknowledge(self, messages: list[Message]) -> None:
        client = self._client
        if client is None:
            # Confirmed before connect() has returned, or after the end: then a new connection clears them.
            self._early += messages
            return
        if messages and not client.closed.done():
            client.ack_all(messages)
            self._tally.pubacks += len(messages)

    def _tell(self, ack: StoredRows) -> None:
        """Send one ``durable``. Without a connection it is lost: the RAE sends those rows again."""
        client = self._client
        if client is None or client.closed.done():
            metrics.durables.labels("lost").inc()
            return
        message = Durable(
            v=1, rae=ack.rae, session=RAE_SESSION, at=datetime.now(UTC), epoch=ack.epoch, stored=ack.ranges
        )
        try:
            client.publish(ack_topic(ack.rae), encode(message), qos=0)
        except MqttUnreachableError:
            metrics.durables.labels("lost").inc()
            return
        metrics.durables.labels("sent").inc()
        metrics.durable_ranges.inc(len(ack.ranges))

    # --- the producer's life

    def _has_no_producer(self) -> bool:
        return self._delivery is None

    def _new_producer(self) -> None:
        metrics.producers.inc()
        producer = self._make_producer(one_by_one=self._blame.careful)
        self._delivery = Delivery(producer, self._gate, on_reports=self._on_reports)

    def _begin_anew(self, reason: str) -> None:
        """Drop producer and connection, nothing acknowledged: the broker delivers what was in flight again."""
        _log.error("Kafka: %s; nothing is acknowledged, beginning anew", reason)
        self._producer_failure = f"Kafka: {reason}"
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.close()
        if self._client is not None:
            self._client.abort()
        self._changed.set()

    def _batches_again(self, now_s: float) -> None:
        """After the record at fault was found: let what is in flight arrive, then send in batches again."""
        self._emptying = self._blame.is_over(now_s)
        if not self._emptying or self._gate.messages or self._delivery is None:
            return
        self._blame.trust()
        self._emptying = False
        self._delivery.close()
        self._new_producer()

    # --- time

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick(time.monotonic())

    def tick(self, now_s: float) -> None:
        """What is due by time alone."""
        if self._delivery is not None:
            self._delivery.poll()
        if self._delivery is not None and self._delivery.fatal is not None:
            self._begin_anew(self._delivery.fatal)
        self._batches_again(now_s)
        self._read_or_pause()
        for ack in self._durable.due(now_s):
            self._tell(ack)
        self._tally.flush()
        metrics.in_flight_messages.set(self._gate.messages)
        metrics.in_flight_bytes.set(self._gate.bytes)
        metrics.paused_seconds.set(self._gate.closed_s(now_s))
        metrics.puback_age_seconds.set(self._acks.oldest_age_s(now_s))
        self._changed.set()

    async def _wait(
        self, condition: Callable[[], bool], *, timeout_s: float = float("inf"), even_stopped: bool = False
    ) -> None:
        """Until ``condition`` holds, the time is over, or (unless ``even_stopped``) ``stop`` was called."""
        deadline_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline_s and (even_stopped or not self._stop.is_set()):
            self._changed.clear()
            await self._changed.wait()  # set by every tick, so the deadline holds to 0.1 s


def _end_of_disconnect(client: Client, task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.warning("DISCONNECT failed: %s", task.exception())
        client.abort()
