"""Reads what lies between two offsets of a topic, without a consumer group: for looking, never for work."""

import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from dmpd.runtime.kafka import KafkaUnreachableError, making_client
from dmpd.runtime.kafka_reader import ReadRecord, close_unanswered, reader_config, record_of
from dmpd.runtime.settings import KafkaSettings

_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - the client's public name for it
_READ_RECORDS: Final = 500


class Range(NamedTuple):
    """Offsets ``first`` up to, not including, ``end``."""

    first: int
    end: int


class RangeReader:
    """One topic, as it is when asked. Commits nothing, disturbs nobody. ``close`` it.

    Raises:
        KafkaUnreachableError: From any call: no answer within ``timeout_s``, or no such topic.
        KafkaRefusedError: From the constructor: credentials or TLS.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, timeout_s: float = 10.0) -> None:
        self._topic: Final = topic
        self._timeout_s: Final = timeout_s
        self._servers: Final = settings.bootstrap_servers
        config = reader_config(settings) | {"enable.partition.eof": True}
        with making_client(settings):
            self._consumer = confluent_kafka.Consumer(config)
        try:
            self.partitions: Final = self._partitions()
        except KafkaException as error:
            close_unanswered(self._consumer, config, settings)
            raise self._unreachable(error) from error

    def close(self) -> None:
        self._consumer.close()

    def bounds(self) -> dict[int, Range]:
        """What each partition holds now. Blocks."""
        try:
            return {
                number: Range(
                    *self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), self._timeout_s)
                )
                for number in self.partitions
            }
        except KafkaException as error:
            raise self._unreachable(error) from error

    def since(self, timestamp_ms: int, bounds: Mapping[int, Range]) -> dict[int, Range]:
        """``bounds`` without the records before that instant, by the timestamps that Kafka keeps. Blocks."""
        asked = [TopicPartition(self._topic, number, timestamp_ms) for number in bounds]
        try:
            found = self._consumer.offsets_for_times(asked, self._timeout_s)
        except KafkaException as error:
            raise self._unreachable(error) from error
        firsts = {one.partition: one.offset for one in found}
        return {  # a negative offset: no record is that young
            number: Range(max(first, firsts[number]) if firsts[number] >= 0 else end, end)
            for number, (first, end) in bounds.items()
        }

    def read(self, ranges: Mapping[int, Range]) -> Iterator[ReadRecord]:
        """The records of ``ranges``, in order within each partition, partitions mixed. Blocks; ends by itself."""
        left: dict[int | None, int] = {number: one.end for number, one in ranges.items() if one.first < one.end}
        self._consumer.assign(
            [TopicPartition(self._topic, number, one.first) for number, one in ranges.items() if number in left]
        )
        quiet_at_s = time.monotonic() + self._timeout_s
        while left:
            messages = self._consumer.consume(_READ_RECORDS, 0.1)
            if messages:
                quiet_at_s = time.monotonic() + self._timeout_s
            elif time.monotonic() > quiet_at_s:
                raise KafkaUnreachableError(f"{self._servers}: nothing of {self._topic} came for {self._timeout_s:g} s")
            for message in messages:
                error, number = message.error(), message.partition()
                if error is not None and error.code() == _EOF:
                    left.pop(number, None)
                elif error is None and number in left:
                    record = record_of(message)
                    if record.offset < left[number]:
                        yield record
                    if record.offset >= left[number] - 1:
                        del left[number]
        self._consumer.unassign()

    def _partitions(self) -> list[int]:
        found = self._consumer.list_topics(self._topic, timeout=self._timeout_s).topics[self._topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def _unreachable(self, error: KafkaException) -> KafkaUnreachableError:
        return KafkaUnreachableError(f"{self._servers}: topic {self._topic}: {error.args[0].str()}")
