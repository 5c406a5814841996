"""A real Kafka for the benchmarks, on this machine, with topics to read and what to fill them with."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from tests.bench.kafka import BenchKafka
from tests.support.services import KafkaService, public_folder, start_kafka

_DIFFERENT = 1000
"""Values that a filled topic repeats."""
_VALUE_BYTES = 300


class Broker:
    """A running one."""

    def __init__(self, service: KafkaService) -> None:
        self._service = service
        self.bootstrap = service.bootstrap_servers
        self.unique = service.unique
        self.dead = service.create_topic(service.unique("dead"))
        self._filled: dict[tuple[int, int], str] = {}

    def topic(self, partitions: int) -> str:
        return self._service.create_topic(partitions=partitions)

    def filled(self, partitions: int, records: int) -> str:
        """A topic with ``records`` of 300 bytes, lz4, evenly over its partitions; filled once for all who ask."""
        topic = self._filled.get((partitions, records))
        if topic is None:
            topic = self.topic(partitions)
            self.fill(topic, partitions, records)
            self._filled[partitions, records] = topic
        return topic

    def fill(self, topic: str, partitions: int, records: int) -> None:
        producer = self.producer({"linger.ms": 50, "compression.type": "lz4", "batch.num.messages": 10_000})
        values = [record_value(n, _VALUE_BYTES) for n in range(_DIFFERENT)]
        keys = [b"rae-%06d/%032x" % (n % 100, n) for n in range(_DIFFERENT)]
        for n in range(records):
            kind = n % _DIFFERENT
            _produce(producer, topic, values[kind], keys[kind], n // 10 % partitions)
            if n % 1000 == 0:
                producer.poll(0)
        if producer.flush(120):
            raise RuntimeError("Kafka did not take all records")

    def producer(self, settings: dict[str, object]) -> Producer:
        return Producer({"bootstrap.servers": self.bootstrap, "log_level": 2} | settings)


@contextmanager
def running() -> Iterator[Broker]:
    """A broker of this run's own; ended at the end of the context."""
    with public_folder() as folder, start_kafka(folder, BenchKafka) as service:
        yield Broker(service)


def record_value(number: int, size_bytes: int) -> bytes:
    """JSON-like text, half of it random: about what devices say, and what compressors make of it."""
    random = "".join(hashlib.blake2b(b"%d/%d" % (number, part)).hexdigest() for part in range(1 + size_bytes // 256))
    text = (
        f'{{"v":1,"kind":"info","session":"{random[:32]}","set":{{"state":"online","esn":"{random[: size_bytes // 3]}'
    )
    return (text + '","app":"x"' * size_bytes)[:size_bytes].encode()


def _produce(producer: Producer, topic: str, value: bytes, key: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition)
        except BufferError:
            producer.poll(0.05)
        else:
            return


def paced(per_s: float, duration_s: float, produce: Callable[[int], None]) -> None:
    """Call ``produce(n)`` so often for so long; late calls are made up for at once."""
    started_s = time.monotonic()
    for n in range(int(per_s * duration_s)):
        due_s = started_s + n / per_s
        left_s = due_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
        produce(n)
