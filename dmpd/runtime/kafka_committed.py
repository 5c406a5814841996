"""What a group has committed, asked by a consumer that need not be a member."""

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

_MOVING: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
"""Of a broker that has just begun, or of a group's first word: another answer comes in a moment."""
_AGAIN_S: Final = 0.1


def committed(consumer: Any, partitions: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """``Consumer.committed``, asked again while the group's coordinator is on its way. Blocks ``timeout_s`` at most.

    Raises:
        KafkaException: No answer, or another one.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            found: list[TopicPartition] = consumer.committed(partitions, max(0.0, deadline_s - time.monotonic()))
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() + _AGAIN_S >= deadline_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return found
