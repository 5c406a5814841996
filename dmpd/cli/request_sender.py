"""Sends requests through Kafka and hears their answers: what ``dmpctl request`` and the lab's demo have in common."""

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Raw

from dmpd.model.codec import InvalidMessageError, decode_record
from dmpd.model.messages import Request, Response
from dmpd.model.requests import FINAL_OUTCOMES, request_record
from dmpd.model.topics import partition_of, rsp_topic
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka import Producer
from dmpd.runtime.kafka_follow import Follower
from dmpd.runtime.kafka_reader import ReadRecord
from dmpd.runtime.settings import KafkaSettings, TopicSettings

PROGRAM: Final = "dmpctl"
BEYOND_S: Final = 10.0
"""After the lifetime, for ``expired``, which the bridge says 2 s later."""
_READ_S: Final = 0.05
_BATCH_RECORDS: Final = 100
_REACH_BACK_MS: Final = 1000


class NoAnswerError(UnavailableError):
    """No final response came, not even ``expired``: something on the way does not work."""


def new_request(rae: str, session: str, verb: str, args: Mapping[str, Raw], *, name: str | None = None) -> Request:
    """A request of now; ``name`` = its id, absent = a new one."""
    now = datetime.now(UTC)
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    return Request(v=1, rae=rae, session=session, at=at, id=name or uuid.uuid4().hex, verb=verb, args=dict(args))


class RequestSender:
    """Connected to Kafka; for one request after the other. ``close`` it.

    Raises:
        KafkaUnreachableError, KafkaRefusedError: From the constructor, which blocks for some seconds at most.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, requester: str) -> None:
        self._topics = topics
        self._requester = requester
        # From a moment ago: an answer must not come before the client knows where the topic ends.
        since_ms = time.time_ns() // 1_000_000 - _REACH_BACK_MS
        self._responses = Follower(kafka, topics.rsp, group="", since_ms=since_ms)
        self._producer = Producer(kafka, PROGRAM, linger_ms=0)
        self._partitions = self._responses.partitions

    def ask(
        self,
        request: Request,
        *,
        lifetime_s: int,
        told: Callable[[Response | None], None] = lambda _: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Response:
        """Send ``request`` and wait for its final response. Blocks for up to the lifetime and 10 s.

        Args:
            request: Complete; see ``new_request``.
            lifetime_s: For so long it may begin.
            told: Hears of each response, the final one included, and None when Kafka has the request.
            waiting: Called often while there is no final one.

        Raises:
            NoAnswerError: There was none.
            UnavailableError: Kafka did not take it.
        """
        self._send(request, lifetime_s, told)
        key = rsp_topic(request.rae, request.session, self._requester).encode()
        deadline_s = time.monotonic() + lifetime_s + BEYOND_S
        accepted = False
        while time.monotonic() < deadline_s:
            for record in self._responses.read(_READ_S, _BATCH_RECORDS):
                response = _response(record) if record.key == key else None
                if response is None or response.id != request.id:
                    continue
                if response.outcome in FINAL_OUTCOMES:
                    told(response)
                    return response
                if not accepted:  # again: the bridge repeated the request, which is no news
                    told(response)
                    accepted = True
            waiting()
        raise NoAnswerError(
            f"accepted, but not answered for good within {lifetime_s} s; the id {request.id} asks again what came of it"
            if accepted
            else f"no answer within {lifetime_s} s, and no word that it expired: does the bridge run (dmpctl status)?"
        )

    def close(self) -> None:
        self._responses.close()
        self._producer.close()

    def _send(self, request: Request, lifetime_s: int, told: Callable[[Response | None], None]) -> None:
        record = request_record(request, self._requester, lifetime_s=lifetime_s)
        reports: list[str | None] = []
        self._producer.produce(
            self._topics.cmd,
            key=record.key,
            value=record.value,
            headers=record.headers,
            partition=partition_of(request.rae, self._partitions),
            on_delivery=reports.append,
        )
        deadline_s = time.monotonic() + min(lifetime_s, BEYOND_S)
        while not reports and time.monotonic() < deadline_s:
            self._producer.poll(_READ_S)
        if not reports:
            raise UnavailableError(f"Kafka did not take the request within {min(lifetime_s, BEYOND_S):g} s")
        if reports[0] is not None:
            raise UnavailableError(f"Kafka did not take the request: {reports[0]}")
        told(None)


def _response(record: ReadRecord) -> Response | None:
    try:
        message = decode_record(record.key, record.value)[1]
    except InvalidMessageError:  # somebody else's rubbish: not what we wait for
        return None
    return message if isinstance(message, Response) else None
