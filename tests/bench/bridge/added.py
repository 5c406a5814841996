"""What the way through bridge and Kafka adds, at the usual rate, to the way through the broker alone."""

import asyncio
import json
import threading
import time
import uuid
from typing import Self

import uvloop
from confluent_kafka import Consumer, TopicPartition

from dmpd.runtime.mqtt import Message, MqttClient
from tests.bench.bridge import load
from tests.bench.bridge.publishers import row
from tests.bench.bridge.servers import BARE, PARTITIONS, Bridge, Platform, wait_for
from tests.bench.bridge.size import Size
from tests.bench.report import Figure, figure

_RATE_PER_S = 900
_RAES = 300
_SETTLE_S = 5.0
_TIMEOUT_S = 60.0


class Arrivals:
    """When each message came to a bare subscriber, and to a consumer of the topic."""

    def __init__(self, platform: Platform, topic: str) -> None:
        self.bare_s: dict[int, float] = {}
        self.kafka_s: dict[int, float] = {}
        self._platform = platform
        self._topic = topic
        self._stopped = threading.Event()
        self._subscribed = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._subscribe, self._consume)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        if not self._subscribed.wait(_TIMEOUT_S):
            raise RuntimeError("the bare subscriber did not subscribe")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _subscribe(self) -> None:
        uvloop.run(self._receive())

    async def _receive(self) -> None:
        clients: list[MqttClient] = []

        def on_message(message: Message) -> None:
            self.bare_s[_number(message.payload)] = time.monotonic()
            clients[0].ack(message)

        client = await MqttClient.connect(
            self._platform.settings(BARE[0]),
            client_id=BARE[0],
            clean_start=True,
            session_expiry_s=0,
            will=None,
            on_message=on_message,
            on_puback=lambda *_: None,
            receive_maximum=1000,
        )
        clients.append(client)
        await client.subscribe(["dmp/v1/+/+/info"])
        self._subscribed.set()
        await asyncio.to_thread(self._stopped.wait)
        await client.disconnect()

    def _consume(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._platform.kafka.bootstrap_servers,
                "group.id": uuid.uuid4().hex,
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "log_level": 2,
            }
        )
        consumer.assign([TopicPartition(self._topic, number, 0) for number in range(PARTITIONS)])
        while not self._stopped.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.kafka_s[_number(message.value())] = time.monotonic()
        consumer.close()


def measure(platform: Platform, size: Size) -> list[Figure]:
    topics = platform.topics()
    with platform.bridge(topics) as bridge, Arrivals(platform, topics.info) as arrivals:
        _connected(bridge)
        with load.running(platform, raes=_RAES, rate_per_s=_RATE_PER_S, payload=numbered) as running:
            time.sleep(_SETTLE_S)
            first = running.sent
            time.sleep(size.steady_s)
        sent = running.sent
        wait_for(lambda: len(arrivals.kafka_s) >= sent, "all in Kafka", _TIMEOUT_S)
    added_ms = sorted(1000 * (arrivals.kafka_s[n] - arrivals.bare_s[n]) for n in range(first + 1, sent + 1))
    return [
        _percentile("added/p50", added_ms, 0.50, "<= 6"),
        _percentile("added/p99", added_ms, 0.99, "<= 40"),
    ]


def numbered(rae: str, number: int) -> bytes:
    return row(rae, number + 1)


def _connected(bridge: Bridge) -> None:
    wait_for(lambda: bridge.metric("dmpd_bridge_connected") == 1, "the bridge is connected", _TIMEOUT_S)


def _percentile(name: str, samples: list[float], part: float, bar: str) -> Figure:
    """One percentile of one run; ``n``, min and max are those of all its samples."""
    made = figure(name, "ms", samples, bar=bar)
    made.value = samples[int(len(samples) * part)]
    return made


def _number(payload: bytes) -> int:
    """Of the message, counted over all RAEs; it is the row's ``seq``."""
    return int(json.loads(payload)["seq"])
