"""Reads a whole topic, as it is at this moment."""

import time
import uuid
from typing import Any

from confluent_kafka import Consumer, TopicPartition

_TIMEOUT_S = 60.0


def read_all(bootstrap_servers: str, topic: str, partitions: int) -> list[Any]:
    """Every record of ``topic``, each partition in its order."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
    )
    records: list[Any] = []
    try:
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        missing = sum(consumer.get_watermark_offsets(place, timeout=30)[1] for place in places)
        consumer.assign(places)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while missing > len(records):
            assert time.monotonic() < deadline_s, f"{len(records)} of {missing} read"
            batch = consumer.consume(1000, 0.2)
            assert not [message.error() for message in batch if message.error()]
            records += batch
    finally:
        consumer.close()
    return records
