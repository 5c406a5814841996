"""What one call of the Kafka client gives, sorted out: pure."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from confluent_kafka import KafkaError, Message

partition_of: Final[Any] = Message.partition
"""As a key: the method itself, not a lambda, is half the cost. It is None only for errors of no partition."""


def by_partition(messages: Sequence[Message]) -> dict[int, Sequence[Message]]:
    """Each partition's, in their order. What the client gives at once is of one partition, mostly, or a run of each."""
    numbers = list(map(partition_of, messages))
    if not numbers:
        return {}
    if numbers.count(numbers[0]) == len(numbers):
        return {numbers[0]: messages}
    groups: dict[int, Any] = {}
    for number, run in groupby(messages, key=partition_of):
        groups.setdefault(number, []).extend(run)
    return groups


def errors_apart(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """The records, and the messages that are errors."""
    if not any(map(Message.error, messages)):
        return messages, ()
    return [m for m in messages if m.error() is None], [m for m in messages if m.error() is not None]


def is_fatal(error: KafkaError) -> bool:
    """Whether only another client helps. A consumer's message says so by its code alone: its ``fatal()`` is false."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL  # noqa: SLF001 - the client's public name for it


def is_out_of_range(error: KafkaError) -> bool:
    """Whether the position is none that Kafka has; the client stops fetching the partition then."""
    return bool(error.code() == KafkaError._AUTO_OFFSET_RESET)  # noqa: SLF001 - as above
