"""Asks RAEs for the checkpoints of all their devices, at a rate, and collects what they answer. Blocks meanwhile."""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from msgspec import Struct, json

from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.messages import Outcome, Response
from dmpd.model.requests import FINAL_OUTCOMES, request, request_record
from dmpd.model.topics import partition_of
from dmpd.runtime.kafka import ProducerQueueFullError, RecordProducer
from dmpd.runtime.kafka_reader import ReadRecord

_READ_S: Final = 0.2
_READ_MAX: Final = 1000
_LATE_S: Final = 10.0
"""After a request's lifetime, for the word that it expired, which the bridge says 2 s later."""

State = Literal[Outcome, "unreachable", "not sent", "asked", "no answer"]


class Target(Struct, frozen=True, kw_only=True):
    """One RAE that may be asked."""

    rae: str
    devices: int
    reachable: bool


class Asked(Struct, kw_only=True):
    """What became of one RAE."""

    rae: str
    devices: int
    state: State
    detail: str = ""
    seconds: float | None = None
    """From the request to the last answer."""


class Responses(Protocol):
    """What is read of ``runtime.kafka_reader.TopicReader``."""

    def read(self, timeout_s: float, records_max: int) -> Sequence[ReadRecord]: ...


def starts_s(devices: Iterable[int], rate: float) -> list[float]:
    """When to ask each RAE, in seconds from the first: its devices' checkpoints then come at ``rate`` per second.

    ``rate`` 0 = all at once. A RAE without devices costs as much as one with a single one.
    """
    found, at_s = [], 0.0
    for count in devices:
        found.append(at_s)
        if rate > 0:
            at_s += max(1, count) / rate
    return found


class Resync:
    """One run. ``run`` is called once."""

    def __init__(
        self,
        *,
        producer: RecordProducer,
        responses: Responses,
        topic: str,
        partitions: int,
        requester: str,
        lifetime_s: int,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``responses`` reads the topic of responses from where it ended before the first request."""
        self._producer = producer
        self._responses = responses
        self._topic = topic
        self._partitions = partitions
        self._requester = requester
        self._lifetime_s = lifetime_s
        self._now_s = now_s
        self._open: dict[str, tuple[Asked, float]] = {}
        """By id of the request: with the time when it was made."""

    def run(
        self, targets: Sequence[Target], *, rate: float, progress: Callable[[int, int], None] = lambda *_: None
    ) -> list[Asked]:
        """Ask every reachable one of ``targets``, and wait until each has answered or its time is over.

        ``progress`` is told, now and then, how many were asked and how many of those are settled.
        """
        results = [
            Asked(rae=one.rae, devices=one.devices, state="asked" if one.reachable else "unreachable")
            for one in targets
        ]
        waiting = [one for one in results if one.state == "asked"]
        begun_s = self._now_s()
        schedule = [begun_s + start_s for start_s in starts_s([one.devices for one in waiting], rate)]
        asked = 0
        while asked < len(waiting) or self._open:
            while asked < len(waiting) and schedule[asked] <= self._now_s() and self._ask(waiting[asked]):
                asked += 1
            self._hear()
            progress(asked, asked - len(self._open))
        return results

    def _ask(self, one: Asked) -> bool:
        """False if the client has no room for the request now: then ``one`` was not asked."""
        request_id = uuid.uuid4().hex
        said = request_record(
            request("checkpoint.all", rae=one.rae, request_id=request_id, at=datetime.now(UTC)),
            self._requester,
            lifetime_s=self._lifetime_s,
        )

        def on_delivery(refusal: str | None) -> None:
            if refusal is not None:
                one.state, one.detail = "not sent", refusal
                self._open.pop(request_id, None)

        self._open[request_id] = (one, self._now_s())
        try:
            self._producer.produce(
                self._topic,
                key=said.key,
                value=said.value,
                headers=said.headers,
                partition=partition_of(one.rae, self._partitions),
                on_delivery=on_delivery,
            )
        except ProducerQueueFullError:
            del self._open[request_id]
            return False
        return True

    def _hear(self) -> None:
        self._producer.poll(0)
        for record in self._responses.read(_READ_S, _READ_MAX):
            self._take(record)
        too_late_s = self._now_s() - self._lifetime_s - _LATE_S
        for request_id, (one, asked_s) in list(self._open.items()):
            if asked_s < too_late_s:
                one.state = "no answer"
                del self._open[request_id]

    def _take(self, record: ReadRecord) -> None:
        try:
            topic, said = decode_record(record.key, record.value)
        except InvalidMessageError:  # of somebody else: ours are awaited until their time is over
            return
        if topic.requester != self._requester or not isinstance(said, Response) or said.id not in self._open:
            return
        one, asked_s = self._open[said.id]
        if one.rae != said.rae:
            return
        one.state = said.outcome
        one.seconds = round(self._now_s() - asked_s, 3)
        one.detail = said.error or _detail(said)
        if said.outcome in FINAL_OUTCOMES:
            del self._open[said.id]


def _detail(said: Response) -> str:
    """The result as JSON, without the null of an answer that has none."""
    return "" if json.decode(said.result) is None else bytes(said.result).decode()
