"""RAEs that keep every row until it is ``durable``, and the check that Kafka has them all, in order.

A publisher here follows the contract of an outbox (go-back-N on a new connection and when the first unstored row is
overdue, one row alone until the broker shows that the bridge's session is there) with a store in memory.
"""

import asyncio
import time
import uuid

import msgspec

from dmpd.model.messages import Durable
from dmpd.model.topics import ack_topic, info_topic
from dmpd.runtime.mqtt import Message, MqttClient, MqttRefusedError, MqttUnreachableError
from dmpd.runtime.settings import MqttSettings

ROWS_UNSTORED_MAX = 64
IN_FLIGHT_MAX = 20
OVERDUE_S = 4.0
NO_SUBSCRIBER = 0x10


class Publisher:
    """One RAE: ``rows`` changes over ``sessions`` device sessions, sent until all are durable."""

    def __init__(
        self, rae: str, settings: MqttSettings, *, rows: int, sessions: int = 3, connect=MqttClient.connect
    ) -> None:
        self.rae = rae
        self._connect = connect
        self._settings = settings
        self._sessions = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{rae}-{n}")) for n in range(sessions)]
        self.epoch = 1_750_000_000_000
        self.rows = {seq: self._row(seq) for seq in range(1, rows + 1)}
        self._unstored = dict(self.rows)
        self._sent_s: dict[int, float] = {}
        self._in_flight: set[int] = set()
        self._alone = True
        self._client = None
        self._moved = asyncio.Event()

    def _row(self, seq: int) -> tuple[str, bytes]:
        session = self._sessions[seq % len(self._sessions)]
        body = {
            "v": 1,
            "kind": "change",
            "rae": self.rae,
            "session": session,
            "at": "2026-01-01T00:00:00.000Z",
            "epoch": self.epoch,
            "rev": seq,
            "seq": seq,
            "set": {"name": f"device {seq}"},
        }
        return info_topic(self.rae, session), msgspec.json.encode(body)

    @property
    def unstored(self) -> int:
        return len(self._unstored)

    async def run(self) -> None:
        """Until every row is durable."""
        while self._unstored:
            try:
                self._client = await self._connect(
                    self._settings,
                    client_id=self.rae,
                    clean_start=True,
                    session_expiry_s=0,
                    will=None,
                    on_message=self._on_message,
                    on_puback=self._on_puback,
                    receive_maximum=100,
                )
            except (MqttRefusedError, MqttUnreachableError):
                await asyncio.sleep(0.1)
                continue
            await self._serve(self._client)
            self._client.abort()

    async def _serve(self, client) -> None:
        self._sent_s.clear()
        self._in_flight.clear()
        self._alone = True
        try:
            await client.subscribe([ack_topic(self.rae)])
        except MqttUnreachableError:
            return
        while self._unstored and not client.closed.done():
            first = next(iter(self._unstored))
            if time.monotonic() - self._sent_s.get(first, float("inf")) > OVERDUE_S:
                self._sent_s.clear()
            self._pump(client)
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), 0.1)
            except TimeoutError:
                continue

    def _pump(self, client) -> None:
        window = list(self._unstored)[:ROWS_UNSTORED_MAX]
        for seq in window:
            if len(self._in_flight) >= (1 if self._alone else IN_FLIGHT_MAX):
                return
            if seq not in self._sent_s:
                topic, payload = self._unstored[seq]
                self._sent_s[seq] = time.monotonic()
                self._in_flight.add(client.publish(topic, payload, qos=1))

    def _on_puback(self, mid: int, reason_code: int) -> None:
        self._in_flight.discard(mid)
        self._alone = reason_code == NO_SUBSCRIBER
        if self._alone:
            self._sent_s.clear()  # nobody has it: from the first unstored row again
        self._moved.set()

    def _on_message(self, message: Message) -> None:
        ack = msgspec.json.decode(message.payload, type=Durable)
        assert ack.rae == self.rae
        if ack.epoch == self.epoch:
            for first, last in ack.stored:
                for seq in range(first, last + 1):
                    self._unstored.pop(seq, None)
        self._moved.set()


def problems(publishers: list[Publisher], records: list[tuple[bytes, bytes]]) -> list[str]:
    """What Kafka's records (key, value; each partition in its order) lack, invent or reorder; empty = all is well."""
    expected: dict[bytes, list[bytes]] = {}
    for publisher in publishers:
        for topic, payload in publisher.rows.values():
            expected.setdefault(topic.encode(), []).append(payload)
    seen: dict[bytes, dict[bytes, None]] = {}
    for key, value in records:
        seen.setdefault(key, {}).setdefault(value)
    found: list[str] = []
    for key in sorted(expected.keys() | seen.keys()):
        wanted, firsts = expected.get(key, []), list(seen.get(key, {}))
        lost, invented = set(wanted) - set(firsts), set(firsts) - set(wanted)
        if lost:
            found.append(f"{key.decode()}: {len(lost)} lost")
        if invented:
            found.append(f"{key.decode()}: {len(invented)} invented")
        if not lost and not invented and firsts != wanted:
            found.append(f"{key.decode()}: first occurrences out of order")
    return found
