"""A thousand RAEs on one loop: connections that do nothing but publish at QoS 1 and count their PUBACKs."""

import asyncio
import json
from collections.abc import Iterable

from dmpd.runtime.mqtt_frames import Frames
from dmpd.runtime.mqtt_stream import Stream, open_stream
from dmpd.runtime.settings import MqttSettings

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
EPOCH = 1_750_000_000_000
WINDOW = 20
_CONNECTS_AT_ONCE = 50
_PAYLOAD_BYTES = 300


class Publisher:
    """One RAE's connection."""

    def __init__(self, rae: str, stream: Stream) -> None:
        self.rae = rae
        self._stream = stream
        self._frames = Frames()
        self._mid = 0
        self.unanswered = 0
        self._answered = asyncio.Event()
        stream.on_data = self._data
        stream.on_lost = self._lost
        stream.send(_connect(rae))
        stream.resume_reading()

    def _data(self, data: bytes) -> None:
        for packet in self._frames.feed(data):
            assert isinstance(packet, bytes)
            if packet[0] == 0x40:
                self.unanswered -= 1
        self._answered.set()

    def _lost(self, why: str) -> None:
        if self.unanswered:
            raise RuntimeError(f"{self.rae}: connection lost: {why}")

    def publish(self, payload: bytes) -> None:
        self._mid = self._mid % 65_535 + 1
        self.unanswered += 1
        self._stream.send(_publish(f"dmp/v1/{self.rae}/{SESSION}/info", payload, self._mid))

    async def publish_all(self, payloads: Iterable[bytes]) -> None:
        """Publish within the window and wait for the last answer."""
        for payload in payloads:
            while self.unanswered >= WINDOW:
                await self._answer()
            self.publish(payload)
        while self.unanswered:
            await self._answer()

    async def _answer(self) -> None:
        self._answered.clear()
        await self._answered.wait()

    def close(self) -> None:
        self._stream.abort()


async def connect_all(raes: list[str], settings: list[MqttSettings]) -> list[Publisher]:
    """One connection for each RAE, some at a time: Mosquitto's listen queue is short."""
    room = asyncio.Semaphore(_CONNECTS_AT_ONCE)

    async def one(rae: str, own: MqttSettings) -> Publisher:
        async with room:
            return Publisher(rae, await open_stream(own))

    return await asyncio.gather(*(one(rae, own) for rae, own in zip(raes, settings, strict=True)))


def row(rae: str, seq: int | None, *, sent_s: float = 0.0, kind: str = "change") -> bytes:
    """A message of 300 bytes; an outbox row if ``seq`` is given."""
    body = {"v": 1, "kind": kind, "rae": rae, "session": SESSION, "epoch": EPOCH, "rev": seq or 1}
    if seq is not None:
        body["seq"] = seq
    body |= {"at": "2026-01-01T00:00:00.000Z", "sent_s": sent_s, "set": {"attributes": {"fill": ""}}}
    text = json.dumps(body, separators=(",", ":"))
    return text.replace('"fill":""', f'"fill":"{"x" * (_PAYLOAD_BYTES - len(text))}"').encode()


def _connect(client_id: str) -> bytes:
    body = b"\x00\x04MQTT\x05\x02\x00\x00\x00" + len(client_id).to_bytes(2) + client_id.encode()
    return b"\x10" + bytes([len(body)]) + body


def _publish(topic: str, payload: bytes, mid: int) -> bytes:
    name = topic.encode()
    length = 2 + len(name) + 2 + 1 + len(payload)
    assert 0x7F < length < 0x4000
    head = bytes([0x32, length & 0x7F | 0x80, length >> 7])
    return b"".join((head, len(name).to_bytes(2), name, mid.to_bytes(2), b"\x00", payload))
