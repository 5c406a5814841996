"""One Kafka producer's life: records in, delivery reports out, in batches, on the event loop's thread.

The producer's callbacks come on a thread of ours that only polls it. Waking the loop costs more than a report, so a
report wakes it only when no wake-up is under way already.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from dmpd.bridge.acks import Ticket
from dmpd.bridge.gate import Gate
from dmpd.bridge.records import Outgoing
from dmpd.runtime.kafka import ProducerQueueFullError, RecordProducer

_POLL_S: Final = 0.1
_CLOSE_S: Final = 1.0

_log = logging.getLogger(__name__)


class Flight:
    """One record on its way, and the message it came from."""

    __slots__ = ("_inbox", "error", "received_s", "record", "ticket")

    def __init__(self, record: Outgoing, ticket: Ticket, received_s: float) -> None:
        self.record = record
        self.ticket = ticket
        self.received_s = received_s
        self.error: str | None = None
        self._inbox: _Inbox | None = None

    def sent_by(self, inbox: "_Inbox") -> None:
        self._inbox = inbox

    def reported(self, error: str | None) -> None:
        """The producer's callback, on its thread."""
        assert self._inbox is not None
        self.error = error
        self._inbox.put(self)


class _Inbox:
    """Hands flights from the poll thread to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[], None]) -> None:
        self._loop = loop
        self._take = take
        self._flights: deque[Flight] = deque()
        self._woken = False

    def put(self, flight: Flight) -> None:
        self._flights.append(flight)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._take)

    def take(self) -> list[Flight]:
        # Cleared before the first look: a flight put after it wakes the loop again, one put before is seen here.
        self._woken = False
        taken: list[Flight] = []
        while self._flights:
            taken.append(self._flights.popleft())
        return taken


class Delivery:
    """Sends through one producer until that fails for good or is closed. Use from the loop's thread only."""

    def __init__(self, producer: RecordProducer, gate: Gate, *, on_reports: Callable[[list[Flight]], None]) -> None:
        self._producer = producer
        self._gate = gate
        self._on_reports = on_reports
        self._inbox = _Inbox(asyncio.get_running_loop(), self._take)
        self._waiting: deque[Flight] = deque()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-poll", daemon=True)
        self._thread.start()

    @property
    def fatal(self) -> str | None:
        """Why this producer can do nothing more, or None."""
        return self._producer.fatal

    def send(self, flight: Flight) -> None:
        """Take ``flight``; never blocks, never refuses: the gate is what bounds the number of them."""
        self._gate.added(flight.record.size_bytes, time.monotonic())
        flight.sent_by(self._inbox)
        if self._waiting or not self._produce(flight):
            self._waiting.append(flight)

    def _produce(self, flight: Flight) -> bool:
        record = flight.record
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
        return True

    def _take(self) -> None:
        if self._closed.is_set():
            return
        flights = self._inbox.take()
        now_s = time.monotonic()
        for flight in flights:
            self._gate.removed(flight.record.size_bytes, now_s)
        while self._waiting and self._produce(self._waiting[0]):
            self._waiting.popleft()
        if flights:
            self._on_reports(flights)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def close(self) -> None:
        """Give up what is in flight; its reports are ignored from here on. Blocks for about 0.1 s at most."""
        self._closed.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            _log.warning("the Kafka producer's poll did not return in %.0f s", _CLOSE_S)
        self._producer.close()
        self._gate.clear(time.monotonic())
