"""A sample of requests to the crowd, through Kafka, bridge and broker to the client, and its answer back again."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from dmpd.canary.arrivals import Finding
from dmpd.canary.broker_watch import PRINCIPAL
from dmpd.canary.plan import Plan, rae_of, session_of
from dmpd.model.messages import Request
from dmpd.model.requests import request_record
from dmpd.model.topics import partition_of
from dmpd.runtime.kafka import Producer
from dmpd.runtime.settings import KafkaSettings

_LIFETIME_S: Final = 120
_POLL_S: Final = 0.02


class RequestSample:
    """``send`` once; what was answered is told by who hears the responses."""

    def __init__(self, settings: KafkaSettings, *, topic: str, partitions: int, plan: Plan) -> None:
        self._producer = Producer(settings, "canary", linger_ms=0)
        self._topic = topic
        self._partitions = partitions
        self._plan = plan
        self.sent_ns: dict[str, int] = {}
        self._asked: dict[str, str] = {}
        self.not_taken: list[str] = []
        """What Kafka said of requests that it did not take."""

    async def send(self, numbers: Sequence[int], over_s: float) -> None:
        """One request to each of these clients, spread over the time."""
        began_s = time.monotonic()
        for turn, number in enumerate(numbers):
            while (wait_s := began_s + over_s * turn / len(numbers) - time.monotonic()) > 0:
                self._producer.poll(0)
                await asyncio.sleep(min(wait_s, _POLL_S))
            self._send(number)
        self._producer.poll(0)

    def serve(self) -> None:
        """Run delivery callbacks."""
        self._producer.poll(0)

    def unanswered(self, answered_ns: dict[str, int]) -> Finding:
        found = Finding()
        for name in self.sent_ns:
            if name not in answered_ns:
                found.add(f"{self._asked[name]}: request {name} without an answer")
        return found

    def took_s(self, answered_ns: dict[str, int]) -> list[float]:
        return [(answered_ns[name] - sent_ns) / 1e9 for name, sent_ns in self.sent_ns.items() if name in answered_ns]

    def close(self) -> None:
        self._producer.close()

    def _send(self, number: int) -> None:
        rae, name = rae_of(number), f"{self._plan.run}-{number}"
        now = datetime.now(UTC)
        request = Request(
            v=1,
            rae=rae,
            session=session_of(self._plan.run, number),
            at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            id=name,
            verb="probe",
        )
        record = request_record(request, PRINCIPAL, lifetime_s=_LIFETIME_S)
        self.sent_ns[name] = time.monotonic_ns()
        self._asked[name] = rae
        self._producer.produce(
            self._topic,
            key=record.key,
            value=record.value,
            headers=record.headers,
            partition=partition_of(rae, self._partitions),
            on_delivery=self._delivered,
        )

    def _delivered(self, error: str | None) -> None:
        if error is not None:
            self.not_taken.append(error)
