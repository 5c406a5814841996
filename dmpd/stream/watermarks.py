"""The ends of the partitions, asked of the broker: what the client knows by itself stands still while it is paused.

A thread of its own, because the question blocks for its whole timeout with a frozen broker (librdkafka#4996).
"""

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dmpd.runtime.kafka import client_config, making_client
from dmpd.runtime.settings import KafkaSettings

_log = logging.getLogger(__name__)
_EVERY_S: Final = 2.0
_TIMEOUT_S: Final = 2.0


class Watermarks:
    """``ends``: next offset to be written, by partition; replaced whole, so readers need no lock. May be old."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.ends: Mapping[int, int] = {}
        self._kafka = kafka
        self._topic = topic
        self._watched: tuple[int, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-watermarks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait: the thread may be blocked for its timeout."""
        self._stopping.set()

    def watch(self, partitions: Iterable[int]) -> None:
        self._watched = tuple(partitions)

    def _run(self) -> None:
        with making_client(self._kafka):
            admin = AdminClient(client_config(self._kafka, "dmpd-stream-watermarks"))
        while not self._stopping.wait(_EVERY_S):
            admin.poll(0)  # its error_cb runs only here
            watched = self._watched
            try:
                self.ends = self._ask(admin, watched)
            except KafkaException as error:
                self.ends = {}
                _log.debug("ends of partitions not known: %s", error)

    def _ask(self, admin: AdminClient, watched: Iterable[int]) -> dict[int, int]:
        asked = {TopicPartition(self._topic, partition): OffsetSpec.latest() for partition in watched}
        if not asked:
            return {}
        answers = admin.list_offsets(asked, request_timeout=_TIMEOUT_S)
        return {one.partition: answer.result().offset for one, answer in answers.items()}
