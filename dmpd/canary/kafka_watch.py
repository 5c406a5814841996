"""The canary's own reader of Kafka: notes what comes of its crowds, hears responses, follows the stream's lag.

Threads of the runner's process; what they found is read by its loop. Kafka that is away is waited for: the drain's
deadline judges.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal

import msgspec
from msgspec import Struct

from dmpd.canary.arrivals import Arrivals
from dmpd.canary.plan import number_of, session_of
from dmpd.canary.watch_thread import WatchThread
from dmpd.model.requests import FINAL_OUTCOMES
from dmpd.model.topics import RAE_SESSION, InvalidTopicError, parse_topic
from dmpd.runtime import kafka_admin
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka_reader import ReadRecord, TopicReader
from dmpd.runtime.settings import KafkaSettings

_READ_S: Final = 0.05
_BATCH_RECORDS: Final = 2000
_LAG_S: Final = 0.5
_OTHERS_MAX: Final = 200
_LAG_TIMEOUT_S: Final = 2.0
"""Of each question: it is asked again anyway."""
_CANARY: Final = b"dmp/v1/canary-"

_log = logging.getLogger(__name__)


class _Head(Struct, frozen=True):
    kind: str
    epoch: int = 0
    seq: int | None = None
    state: str | None = None


class _Answer(Struct, frozen=True):
    id: str
    outcome: str


_heads: Final = msgspec.json.Decoder(_Head)
_answers: Final = msgspec.json.Decoder(_Answer)


class KafkaWatch:
    """``start``, then read; ``stop``. The readers begin at the ends that the topics had at ``start``."""

    def __init__(self, settings: KafkaSettings, *, info: str, rsp: str, crowds: Sequence[Arrivals]) -> None:
        self._settings = settings
        self._topics: dict[Literal["info", "rsp"], str] = {"info": info, "rsp": rsp}
        self._crowds = crowds
        self._sessions = {
            number: session_of(crowd.plan.run, number) for crowd in crowds for number in crowd.plan.numbers
        }
        self._threads: list[WatchThread] = []
        self._others: dict[tuple[str, str], None] = {}
        self.answered_ns: dict[str, int] = {}
        """When the final response to a request came, by the request's id."""
        self.trouble: str | None = None
        """What a reader died of."""

    def start(self) -> None:
        """Blocks until both readers know where they begin. Raises ``UnavailableError``."""
        for kind, topic in self._topics.items():
            ends = kafka_admin.list_end_offsets(self._settings, topic)
            reader = TopicReader(self._settings, topic, ends)
            take = self._take_info if kind == "info" else self._take_response
            thread = WatchThread(f"reads {topic}", partial(self._run, reader, take))
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        for thread in self._threads:
            thread.stop()

    def others(self) -> list[tuple[str, str]]:
        """Some device sessions of RAEs that are no canaries and changed since the last call."""
        found, self._others = self._others, {}
        return list(found)

    def _run(self, reader: TopicReader, take: Callable[[ReadRecord, int], None], stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                records = reader.read(_READ_S, _BATCH_RECORDS)
                now_ns = time.monotonic_ns()
                for record in records:
                    take(record, now_ns)
        except Exception as error:  # a proof without its witness is none: the run says so
            self.trouble = f"{type(error).__name__}: {error}"
            _log.exception("the canary's reader of Kafka died")
        finally:
            reader.close()

    def _take_info(self, record: ReadRecord, now_ns: int) -> None:
        key, value = record.key or b"", record.value or b""
        if not key.startswith(_CANARY):
            self._note_other(key, value)
            return
        where = f"{record.topic} {record.partition}:{record.offset}"
        try:
            topic = parse_topic(key.decode("ascii"))
            head = _heads.decode(value)
        except (UnicodeDecodeError, InvalidTopicError, msgspec.DecodeError) as error:
            self._crowds[0].note_stranger(f"{key!r:.100}: {error} ({where})")
            return
        number = number_of(topic.rae)
        for crowd in self._crowds:
            plan = crowd.plan
            if not plan.first <= number <= plan.last or head.epoch != plan.epoch:
                continue
            slot = head.seq
            if topic.session == RAE_SESSION:
                slot = 0 if head.state == "ready" else plan.farewell_slot
            elif topic.session != self._sessions[number]:
                if slot is not None:  # without it: how this run closes what a crashed one left
                    crowd.note_stranger(f"{topic}: no device session of this run ({where})")
                continue
            crowd.note(number, -1 if slot is None else slot, zlib.crc32(value), now_ns, where)

    def _note_other(self, key: bytes, value: bytes) -> None:
        if len(self._others) >= _OTHERS_MAX or b'"kind":"change"' not in value:
            return
        try:
            topic = parse_topic(key.decode("ascii"))
        except (UnicodeDecodeError, InvalidTopicError):  # somebody else's rubbish, which the stream judges
            return
        self._others[topic.rae, topic.session] = None

    def _take_response(self, record: ReadRecord, now_ns: int) -> None:
        if not (record.key or b"").startswith(_CANARY):
            return
        try:
            found = _answers.decode(record.value or b"")
        except msgspec.DecodeError as error:
            _log.warning("a response that cannot be read: %s", error)
            return
        if found.outcome in FINAL_OUTCOMES and found.outcome == "done":
            self.answered_ns.setdefault(found.id, now_ns)


class LagWatch:
    """Follows what the Cloud Registry's group has committed, from ``start`` to ``stop``."""

    def __init__(self, settings: KafkaSettings, *, group: str, topic: str) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._aimed = threading.Event()
        self._target: Mapping[int, int] | None = None
        self._thread = WatchThread("follows the lag", self._run)
        self.lag_max = 0
        self.done_s: float | None = None
        """When everything up to the target was committed, monotonic."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def aim(self) -> None:
        """The target is what is in Kafka now, or as soon as Kafka can say so."""
        self._aimed.set()

    def _run(self, stopping: threading.Event) -> None:
        asked: kafka_admin.GroupProgress | None = None
        while not stopping.wait(_LAG_S):
            aimed = self._aimed.is_set()
            try:
                if asked is None:
                    asked = kafka_admin.GroupProgress(
                        self._settings, self._group, self._topic, timeout_s=_LAG_TIMEOUT_S
                    )
                progress = asked.ask()
            except UnavailableError as error:
                _log.warning("lag: %s", error)
                continue
            self._note(progress, aimed=aimed)

    def _note(self, progress: kafka_admin.Progress, *, aimed: bool) -> None:
        self.lag_max = max(self.lag_max, sum(progress.lag().values()))
        if aimed and self._target is None:
            self._target = progress.ends
        if self._target is not None and self.done_s is None and _covers(progress.next, self._target):
            self.done_s = time.monotonic()


def _covers(committed: Mapping[int, int], target: Mapping[int, int]) -> bool:
    return all(committed.get(number, 0) >= end for number, end in target.items())
