"""A broker session and a Kafka producer that do exactly what a test of the bridge tells them, and nothing more.

The twins of ``runtime`` behave like healthy servers; here a test decides the order of every delivery report.
"""

import asyncio
import queue
from collections import deque
from typing import Any, NamedTuple

from dmpd.runtime.kafka import RECORD_TOO_LARGE, ProducerQueueFullError
from dmpd.runtime.mqtt import Message, MqttRefusedError, MqttUnreachableError


class Sent(NamedTuple):
    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    partition: int | None
    on_delivery: Any


class ScriptedProducer:
    """Reports nothing until ``report`` says so; reports come inside ``poll``, as the real one's do."""

    def __init__(self, *, capacity: int = 1_000_000, one_by_one: bool = False) -> None:
        self.capacity = capacity
        self.one_by_one = one_by_one
        self.refuse: bytes | None = None
        """The value that the client itself refuses, as too large."""
        self.sent: list[Sent] = []
        self.open = 0
        self.fatal: str | None = None
        self.automatic = False
        self._reports: queue.Queue[tuple[Sent, str | None]] = queue.Queue()

    def produce(self, topic, *, key, value, headers=(), partition=None, on_delivery) -> None:
        if self.open >= self.capacity:
            raise ProducerQueueFullError
        if value == self.refuse and topic == "dmp.info":
            on_delivery(RECORD_TOO_LARGE)
            return
        self.open += 1
        sent = Sent(topic, key, value, tuple(headers), partition, on_delivery)
        self.sent.append(sent)
        if self.automatic:
            self._reports.put((sent, None))

    def report(self, index: int, error: str | None = None) -> None:
        self._reports.put((self.sent[index], error))

    def poll(self, timeout_s: float) -> int:
        try:
            sent, error = self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return 0
        self.open -= 1
        sent.on_delivery(error)
        return 1 + self.poll(0)

    def flush(self, timeout_s: float) -> int:
        return self.open

    def close(self) -> None:
        """Nothing to free."""

    def values(self, topic: str = "dmp.info") -> list[bytes]:
        return [sent.value for sent in self.sent if sent.topic == topic]


class ScriptedBroker:
    """One session of one client: what is unacknowledged when a connection ends comes again, first and with DUP."""

    def __init__(self) -> None:
        self.queued: deque[tuple[str, bytes, bool]] = deque()
        self.unacked: deque[tuple[str, bytes, bool]] = deque()
        self.connections: list[ScriptedClient] = []
        self.refusals: deque[Exception] = deque()
        self.subscribe_code = 1

    async def connect(self, settings, *, client_id, clean_start, on_message, **options) -> "ScriptedClient":
        assert client_id == "svc-bridge"
        assert clean_start is False
        if self.refusals:
            raise self.refusals.popleft()
        client = ScriptedClient(self, on_message, options)
        self.connections.append(client)
        self.queued.extendleft((topic, payload, True) for topic, payload, _ in reversed(self.unacked))
        self.unacked.clear()
        self.deliver()
        return client

    @property
    def client(self) -> "ScriptedClient":
        return self.connections[-1]

    @property
    def connected(self) -> bool:
        return bool(self.connections) and not self.client.closed.done() and self.client.filters != []

    def publish(self, topic: str, payload: bytes) -> None:
        self.queued.append((topic, payload, False))
        self.deliver()

    def deliver(self) -> None:
        if not self.connections:
            return
        client = self.client
        while self.queued and not client.paused and not client.closed.done():
            topic, payload, dup = self.queued.popleft()
            self.unacked.append((topic, payload, dup))
            client.mid += 1
            client.on_message(Message(topic, payload, 1, False, dup, client.mid, None, (), None, None))


class ScriptedClient:
    def __init__(self, broker: ScriptedBroker, on_message, options: dict[str, Any]) -> None:
        self.broker = broker
        self.on_message = on_message
        self.options = options
        self.session_present = len(broker.connections) > 0
        self.server_receive_maximum = 65_535
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.close_reason_code = 0
        self.filters: list[str] = []
        self.paused = False
        self.mid = 0
        self.acked: list[bytes] = []
        self.published: list[tuple[str, bytes]] = []
        self.disconnected_by_us = False

    async def subscribe(self, filters, *, qos=1, retain_handling=1) -> list[int]:
        self.filters = list(filters)
        return [self.broker.subscribe_code for _ in filters]

    def ack_all(self, messages) -> None:
        assert self is self.broker.client, "acknowledged on an older connection"
        assert not self.closed.done()
        for message in messages:
            assert self.broker.unacked[0][:2] == (message.topic, message.payload), "not in the order of receipt"
            self.broker.unacked.popleft()
            self.acked.append(message.payload)

    def publish(self, topic, payload, *, qos, retain=False, expiry_s=None) -> int:
        if self.closed.done():
            raise MqttUnreachableError("closed")
        assert (qos, retain) == (0, False)
        self.published.append((topic, payload))
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        asyncio.get_running_loop().call_soon(self.broker.deliver)

    async def disconnect(self, *, reason_code=0) -> None:
        self.disconnected_by_us = True
        self.cut("we disconnected")

    def abort(self) -> None:
        self.cut("aborted")

    def cut(self, why: str = "cut", reason_code: int = 0) -> None:
        if not self.closed.done():
            self.close_reason_code = reason_code
            self.closed.set_result(why)


def refused(reason_code: int) -> MqttRefusedError:
    return MqttRefusedError(reason_code, f"refused with 0x{reason_code:02x}")
