"""Where the log of each partition ends: asked of the broker, because the client's own idea stands still while paused.

A thread of its own, because the question blocks for its whole timeout with a frozen broker (librdkafka#4996).
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dmpd.runtime.kafka import client_config, making_client
from dmpd.runtime.settings import KafkaSettings

_log = logging.getLogger(__name__)
_TIMEOUT_S: Final = 2.0


class Answer(NamedTuple):
    """What the broker said. ``at_s``: monotonic, when it was asked."""

    at_s: float
    ends: Mapping[int, int]
    """Next offset that readers can get, by partition: what lies in open transactions comes later."""
    starts: Mapping[int, int]
    """First offset there is, where it was asked for."""


class Watermarks:
    """``answer``: the newest; what was not answered is absent in it. Replaced whole, so readers need no lock."""

    def __init__(self, kafka: KafkaSettings, topic: str, *, every_s: float) -> None:
        self.answer: Answer | None = None
        self.every_s: Final = every_s
        self._kafka = kafka
        self._topic = topic
        self._asks: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        uncommitted = kafka.options.get("isolation.level") == "read_uncommitted"
        self._isolation = IsolationLevel.READ_UNCOMMITTED if uncommitted else IsolationLevel.READ_COMMITTED
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-watermarks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread. False = it is still blocked in its question: the interpreter must not be torn down under it
        (the client's code then runs into a dead interpreter, seen as SIGSEGV).
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def watch(self, partitions: Iterable[int], *, starts: Iterable[int]) -> None:
        """Ask for the ends of ``partitions``, and where the log begins for ``starts``."""
        self._asks = tuple(partitions), tuple(starts)

    def fresh(self, now_s: float) -> Answer | None:
        """The newest answer, if it is so new that nothing can have come between."""
        answer = self.answer
        return answer if answer is not None and now_s - answer.at_s <= self.every_s + _TIMEOUT_S else None

    def _run(self) -> None:
        with making_client(self._kafka):
            admin = AdminClient(client_config(self._kafka, "dmpd-stream-watermarks"))
        while not self._stopping.wait(self.every_s):
            admin.poll(0)  # its error_cb runs only here
            ends, starts = self._asks
            at_s = time.monotonic()
            self.answer = Answer(
                at_s, self._ask(admin, ends, OffsetSpec.latest()), self._ask(admin, starts, OffsetSpec.earliest())
            )

    def _ask(self, admin: AdminClient, partitions: Iterable[int], spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(self._topic, partition): spec for partition in partitions}
        if not asked:
            return {}
        answers = admin.list_offsets(asked, isolation_level=self._isolation, request_timeout=_TIMEOUT_S)
        found = {}
        for one, answer in answers.items():
            try:
                found[one.partition] = answer.result().offset
            except KafkaException as error:  # that one is not known then
                _log.debug("partition %d: its offsets are not known: %s", one.partition, error)
        return found
