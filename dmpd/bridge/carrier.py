"""From a message to Kafka and back to its PUBACK and its ``durable``, through one Kafka producer after another.

The decisions are made in ``records``, ``acks``, ``blame``, ``durable`` and ``gate``; ``uplink`` brings the connections.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from dmpd.bridge import metrics
from dmpd.bridge.acks import AckFrontier
from dmpd.bridge.blame import Blame
from dmpd.bridge.delivery import Delivery, Flight
from dmpd.bridge.durable import DurableAcks, Lag, StoredRows
from dmpd.bridge.gate import Gate
from dmpd.bridge.records import Outgoing, dead_letter, record_of
from dmpd.bridge.settings import BridgeSettings
from dmpd.model.codec import encode
from dmpd.model.messages import Durable
from dmpd.model.topics import RAE_SESSION, ack_topic
from dmpd.runtime.kafka import RecordProducer, is_record_fault
from dmpd.runtime.mqtt import Message, MqttUnreachableError
from dmpd.runtime.settings import TopicSettings

DEAD_LOG_S: Final = 1.0
WORST: Final = 5
"""So many RAEs are named when their rows wait to be durable."""
LAG_EACH_S: Final = 1.0
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


class MakeProducer(Protocol):
    """Makes one producer, which must not let a record pass one that was refused: it fails for good instead."""

    def __call__(self, *, one_by_one: bool) -> RecordProducer:
        """``one_by_one``: each record in a batch of its own."""


class Carrier:
    """Owns what is in flight. On the loop's thread; does not block.

    ``on_change`` is called when reports came or the gate closed, ``on_failure`` (with a sentence) when the producer
    failed for good: then nothing is carried until ``new_producer``, and the connection must go, for what was in flight
    on it is acknowledged by nobody.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        *,
        topics: TopicSettings,
        partitions: Mapping[str, int],
        gate: Gate,
        make_producer: MakeProducer,
        on_change: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.partitions = partitions
        """How many the info and rsp topics have; exchange it between producers only."""
        self.acks: AckFrontier[Message] = AckFrontier()
        self.emptying = False
        """Nothing more shall come until all that is in flight has arrived."""
        self.worst: list[Lag] = []
        """The RAEs whose rows wait longest to be durable."""
        self._topics = topics
        self._gate = gate
        self._make_producer = make_producer
        self._on_change = on_change
        self._on_failure = on_failure
        self._durable = DurableAcks(delay_s=settings.durable_delay_s, rows_max=settings.durable_rows_max)
        self._blame = Blame(careful_s=CAREFUL_S)
        self._tally = metrics.Tally()
        self._delivery: Delivery | None = None
        self._client: Client | None = None
        self._early: list[Message] = []
        self._worst_due_s = 0.0
        self._dead_logged_s: dict[str, float] = {}

    # --- connections

    def new_connection(self) -> int:
        """Before a connect: what the last connection left is acknowledged by nobody. Returns its messages' epoch."""
        self._early.clear()
        return self.acks.new_connection()

    def attach(self, client: Client) -> None:
        """Acknowledge on ``client`` from now on, what was confirmed while it connected first."""
        self._client = client
        early, self._early = self._early, []
        self._acknowledge(early)

    def detach(self) -> None:
        self._client = None

    def farewell(self) -> None:
        """Tell the RAEs what they were not told yet."""
        for ack in self._durable.take_all():
            self._tell(ack)

    # --- messages in

    def on_message(self, epoch: int, message: Message) -> None:
        if epoch != self.acks.epoch or self._delivery is None:
            return
        now_s = time.monotonic()
        tally = self._tally
        tally.received += 1
        if message.dup:
            tally.redelivered += 1
        if message.retain:
            tally.retained += 1
        ticket = self.acks.received(message, now_s)
        record = record_of(message, self._topics, partitions=self.partitions, now_s=time.time())
        if record is None:
            tally.strangers += 1
            self._acknowledge(self.acks.stored(ticket))
            return
        if self._blame.condemned and record.reason is None:
            record = self._judged(record, now_s)
        if record.reason is not None:
            self._count_dead(record.reason, message.topic)
        if record.row is not None:
            self._durable.received(*record.row, now_s=now_s)
        self._delivery.send(Flight(record, ticket, now_s))
        if not self._gate.is_open:
            self._on_change()

    def _judged(self, record: Outgoing, now_s: float) -> Outgoing:
        """``record``, or its dead letter if it is the one that Kafka refused alone."""
        sentence = self._blame.sentence_for(record.key, record.value)
        if sentence is None:
            return record
        self._blame.found(now_s)
        return dead_letter(record, self._topics, reason="undeliverable", detail=sentence)

    def _count_dead(self, reason: str, topic: str) -> None:
        metrics.dead_letters.labels(reason).inc()
        now_s = time.monotonic()
        if now_s - self._dead_logged_s.get(reason, -DEAD_LOG_S) < DEAD_LOG_S:
            return  # the metric counts them all; the log is no target for a flood
        self._dead_logged_s[reason] = now_s
        _log.warning("dead letter (%s): a message on %r", reason, topic[:256])

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
        self._on_change()

    def _stored(self, flight: Flight, now_s: float) -> list[Message]:
        self._tally.delivered[flight.record.topic] += 1
        metrics.delivery_seconds.observe(now_s - flight.received_s)
        row = flight.record.row
        if row is not None:
            ack = self._durable.stored(*row, now_s=now_s)
            if ack is not None:
                self._tell(ack)
        if flight.ticket.epoch != self.acks.epoch:
            self._tally.late_reports += 1
        return self.acks.stored(flight.ticket)

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
        metrics.durable_seconds.observe(time.monotonic() - ack.since_s)

    # --- the producer's life

    def has_producer(self) -> bool:
        return self._delivery is not None

    def new_producer(self) -> None:
        """Make the next one; ``has_producer()`` from now on."""
        metrics.producers.inc()
        producer = self._make_producer(one_by_one=self._blame.careful)
        self._delivery = Delivery(producer, self._gate, on_reports=self._on_reports)

    def _begin_anew(self, reason: str) -> None:
        """Drop the producer, nothing acknowledged: the broker delivers what was in flight again."""
        _log.error("Kafka: %s; nothing is acknowledged, beginning anew", reason)
        self._durable.forget_received()
        self.close()
        self._on_failure(f"Kafka: {reason}")

    def _batches_again(self, now_s: float) -> None:
        """After the record at fault was found: let what is in flight arrive, then send in batches again."""
        self.emptying = self._blame.is_over(now_s)
        if not self.emptying or self._gate.messages or self._delivery is None:
            return
        self._blame.trust()
        self.emptying = False
        self._delivery.close()
        self.new_producer()

    # --- time

    def tick(self, now_s: float) -> None:
        """What is due by time alone."""
        if self._delivery is not None:
            self._delivery.poll()
        if self._delivery is not None and self._delivery.fatal is not None:
            self._begin_anew(self._delivery.fatal)
        self._batches_again(now_s)
        for ack in self._durable.due(now_s):
            self._tell(ack)
        self._tally.flush()
        self._look_for_lag(now_s)
        metrics.in_flight_messages.set(self._gate.messages)
        metrics.in_flight_bytes.set(self._gate.bytes)
        metrics.paused_seconds.set(self._gate.closed_s(now_s))
        metrics.puback_age_seconds.set(self.acks.oldest_age_s(now_s))

    def _look_for_lag(self, now_s: float) -> None:
        if now_s < self._worst_due_s:
            return
        self._worst_due_s = now_s + LAG_EACH_S
        self.worst = self._durable.worst(WORST, now_s)
        for rank in range(WORST):
            lag_s = self.worst[rank].lag_s if rank < len(self.worst) else 0.0
            metrics.durable_lag_seconds.labels(str(rank + 1)).set(lag_s)

    def close(self) -> None:
        """Let go of the producer; what is in flight is nobody's."""
        if self._delivery is not None:
            self._delivery.close()
            self._delivery = None
