"""Reads a topic without a consumer group: for watching and counting, never for processing."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TopicPartition

from dmpd.runtime.kafka import (
    UNREADABLE_HEADERS,
    KafkaRefusedError,
    KafkaUnreachableError,
    client_config,
    making_client,
)
from dmpd.runtime.settings import KafkaSettings


class ReadRecord(NamedTuple):
    """One record; ``timestamp_ms`` is -1 when it carries none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class TopicReader:
    """Reads all partitions of ``topic`` from its end, its beginning, or given offsets by partition. Commits nothing.

    The end is looked up when reading begins: who must not miss what comes after an instant asks for the offsets then.

    Raises:
        KafkaUnreachableError: From the constructor: no metadata within ``timeout_s``, or no such topic.
        KafkaRefusedError: From the constructor: credentials or TLS.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        start: Literal["end", "beginning"] | Mapping[int, int] = "end",
        *,
        timeout_s: float = 10.0,
    ) -> None:
        config = reader_config(settings)
        with making_client(settings):
            self._consumer = confluent_kafka.Consumer(config)
        try:
            found = self._consumer.list_topics(topic, timeout=timeout_s).topics[topic]
        except confluent_kafka.KafkaException as error:
            close_unanswered(self._consumer, config, settings)
            raise KafkaUnreachableError(f"{settings.bootstrap_servers}: {error.args[0].str()}") from error
        if found.error is not None or not found.partitions:
            self._consumer.close()
            raise KafkaUnreachableError(f"topic {topic}: {found.error.str() if found.error else 'has no partitions'}")
        default = OFFSET_BEGINNING if start == "beginning" else OFFSET_END
        starts = {} if isinstance(start, str) else start
        self.partitions = len(found.partitions)
        self._consumer.assign(
            [TopicPartition(topic, number, starts.get(number, default)) for number in found.partitions]
        )

    def read(self, timeout_s: float, records_max: int) -> list[ReadRecord]:
        """Up to ``records_max`` records; waits up to ``timeout_s`` for the first, then takes what is there."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            first = self._consumer.poll(min(0.1, max(0.0, deadline_s - time.monotonic())))
            if first is not None and first.error() is None:
                break
            if time.monotonic() >= deadline_s:
                return []
        rest = self._consumer.consume(records_max - 1, 0) if records_max > 1 else []
        return [record_of(message) for message in [first, *rest] if message.error() is None]

    def close(self) -> None:
        self._consumer.close()


def reader_config(settings: KafkaSettings) -> dict[str, Any]:
    """Of a client that reads without a group; for ``making_client`` and ``close_unanswered``."""
    return client_config(settings, "dmpd-reader") | {
        "group.id": "dmpd-reader",  # demanded by the client, never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": 16_384,
    }


def close_unanswered(consumer: confluent_kafka.Consumer, config: dict[str, Any], settings: KafkaSettings) -> None:
    """Close a client whose first question failed. Raises ``KafkaRefusedError`` if that was for credentials or TLS."""
    consumer.poll(0)  # runs error_cb
    consumer.close()
    refusal = config["error_cb"].refusal
    if refusal is not None:
        raise KafkaRefusedError(f"Kafka at {settings.bootstrap_servers}: {refusal}")


def headers_of(messages: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The headers of each message (None if there are none), and the messages whose headers cannot be read.

    The client raises for a name that is no UTF-8, and asked again it gives a tuple with a hole in it that crashes who
    looks: so each is asked once.
    """
    found: list[Any] = []
    unreadable = []
    reading = map(confluent_kafka.Message.headers, messages)
    while True:
        try:
            found.extend(reading)
        except SystemError:
            unreadable.append(messages[len(found)])
            found.append([UNREADABLE_HEADERS])
        else:
            return found, unreadable


def record_of(message: Any) -> ReadRecord:
    """A message of the client that is no error."""
    return ReadRecord(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers_of([message])[0][0] or (),
    )
