"""One Kafka producer's life: records in, delivery reports out, in batches, all on the event loop's thread.

The producer is polled by a timer of the loop while anything is in flight. A thread that polls would hand each batch
over through Python's interpreter lock and a wake-up of the loop, which costs more than the polls that find nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from dmpd.bridge.acks import Ticket
from dmpd.bridge.gate import Gate
from dmpd.bridge.records import Outgoing
from dmpd.runtime.kafka import ProducerQueueFullError, RecordProducer
from dmpd.runtime.mqtt import Message

_POLL_S: Final = 0.002
"""A delivery takes 4 ms and more, most of it linger and the broker's disk."""


class Flight:
    """One record on its way, and the message it came from."""

    __slots__ = ("error", "inbox", "received_s", "record", "refused_by_client", "ticket")

    def __init__(self, record: Outgoing, ticket: Ticket[Message], received_s: float) -> None:
        self.record = record
        self.ticket = ticket
        self.received_s = received_s
        self.error: str | None = None
        self.refused_by_client = False
        """The record was not even sent; what was sent before and after it is not affected."""
        self.inbox: list[Flight] | None = None

    def reported(self, error: str | None) -> None:
        """The producer's callback, inside its ``poll`` or ``produce``."""
        assert self.inbox is not None
        self.error = error
        self.inbox.append(self)


class Delivery:
    """Sends through one producer until that fails for good or is closed. Use from the loop's thread only."""

    def __init__(self, producer: RecordProducer, gate: Gate, *, on_reports: Callable[[list[Flight]], None]) -> None:
        self._producer = producer
        self._gate = gate
        self._on_reports = on_reports
        self._loop = asyncio.get_running_loop()
        self._inbox: list[Flight] = []
        self._in_flight = 0
        self._waiting: deque[Flight] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def fatal(self) -> str | None:
        """Why this producer can do nothing more, or None; up to date after ``poll``."""
        return self._producer.fatal

    def send(self, flight: Flight) -> None:
        """Take ``flight``; never blocks, never refuses: the gate is what bounds the number of them."""
        self._gate.added(flight.record.size_bytes, flight.received_s)
        self._in_flight += 1
        flight.inbox = self._inbox
        if self._waiting or not self._produce(flight):
            self._waiting.append(flight)
        if self._timer is None:
            self._timer = self._loop.call_later(_POLL_S, self._due)

    def _produce(self, flight: Flight) -> bool:
        record, reported = flight.record, len(self._inbox)
        try:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                partition=record.partition,
                on_delivery=flight.reported,
            )
        except ProducerQueueFullError:
            return False  # sent in its turn, as soon as reports make room
        flight.refused_by_client = len(self._inbox) > reported
        return True

    def _due(self) -> None:
        self._timer = None
        self.poll()
        if self._in_flight and not self._closed and self._timer is None:
            self._timer = self._loop.call_later(_POLL_S, self._due)

    def poll(self) -> None:
        """Let the producer report, and hand the reports on. Needed when idle too: ``fatal`` shows in no other way."""
        if self._closed:
            return
        if not self._producer.poll(0) and self._producer.fatal is not None:
            self._producer.poll(0)  # it broke off at the error; the reports behind it say which record was at fault
        while self._waiting and self._produce(self._waiting[0]):
            self._waiting.popleft()
        if not self._inbox:
            return
        flights, self._inbox[:] = self._inbox[:], []
        self._in_flight -= len(flights)
        size_bytes = sum([flight.record.size_bytes for flight in flights])
        self._gate.removed(size_bytes, time.monotonic(), messages=len(flights))
        self._on_reports(flights)

    def close(self) -> None:
        """Give up what is in flight; its reports are ignored from here on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._producer.close()
        self._gate.clear(time.monotonic())
