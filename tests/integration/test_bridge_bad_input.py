"""What a RAE gone wrong, or somebody with its key, can send: it costs its message, never the way of the others.

Packets are made by hand here, for no client library writes them. The page docs/bridge.md tells the same to people.
"""

import asyncio
import json
import uuid

import pytest

from dmpd.bridge.settings import BridgeSettings
from dmpd.model import limits
from dmpd.runtime.mqtt_frames import Frames
from dmpd.runtime.mqtt_stream import Stream, open_stream
from dmpd.runtime.settings import TopicSettings
from tests.support.aio import until
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.kafka_read import read_all
from tests.support.services import public_folder, start_mosquitto

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
QOS_1, DUP, RETAIN = 0x32, 0x08, 0x01


class Hand:
    """A connection whose PUBLISH packets are made by hand."""

    def __init__(self, rae: str, stream: Stream) -> None:
        self.rae = rae
        self.answers: dict[int, int] = {}
        self.closed = False
        self._frames = Frames()
        self._stream = stream
        self._mid = 0
        stream.on_data, stream.on_lost = self._data, self._lost
        body = b"\x00\x04MQTT\x05\x02\x00\x3c\x00" + len(rae).to_bytes(2) + rae.encode()
        stream.send(b"\x10" + bytes([len(body)]) + body)
        stream.resume_reading()

    def _data(self, data: bytes) -> None:
        for packet in self._frames.feed(data):
            if packet[0] == 0x40:
                self.answers[int.from_bytes(packet[2:4])] = packet[4] if len(packet) > 4 else 0

    def _lost(self, why: str) -> None:
        self.closed = True

    def publish(self, topic: bytes, payload: bytes, *, flags: int = 0, properties: bytes = b"") -> int:
        self._mid += 1
        body = len(topic).to_bytes(2) + topic + self._mid.to_bytes(2) + varint(len(properties)) + properties + payload
        self._stream.send(bytes([QOS_1 | flags]) + varint(len(body)) + body)
        return self._mid

    def close(self) -> None:
        self._stream.abort()


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def change(rae: str, seq: int, **fields: object) -> bytes:
    body = {"v": 1, "kind": "change", "rae": rae, "session": SESSION, "epoch": 7, "seq": seq, "rev": seq, **fields}
    return json.dumps(body).encode()


@pytest.fixture
def mosquitto_of_its_own():
    with public_folder() as folder, start_mosquitto(folder) as service:
        yield service


def test_bad_input_costs_its_message_and_nothing_else(kafka, mosquitto_of_its_own, tmp_path) -> None:
    broker = mosquitto_of_its_own
    names = {name: kafka.create_topic() for name in ("info", "rsp", "cmd", "info_dead")}
    topics = TopicSettings(**names, partitions=1)
    sections = Sections(
        bridge=BridgeSettings(health_bind=f"unix:{tmp_path}/health.sock"),
        kafka=kafka.settings,
        mqtt=broker.settings("svc-bridge"),
        topics=topics,
    )
    bridge = BridgeProcess(sections, tmp_path / "bridge.log")
    rae = f"T{uuid.uuid4().hex[:6]}"
    info = f"dmp/v1/{rae}/{SESSION}/info".encode()
    big = b"x" * (limits.PAYLOAD_BYTES_MAX + 1)

    async def connect() -> Hand:
        return Hand(rae, await open_stream(broker.settings(rae)))

    async def answered(hand: Hand, mid: int) -> int:
        await until(lambda: mid in hand.answers or hand.closed, "an answer, or the end of the connection")
        return hand.answers.get(mid, -1)

    async def scenario() -> None:
        await until(lambda: b"connected, session" in bridge.log.read_bytes(), "bridge connected")
        hand = await connect()
        taken = [
            hand.publish(info, b""),
            hand.publish(info, big),
            hand.publish(info, b"{"),
            hand.publish(info, b'{"rae":"\xff"}'),
            hand.publish(info, change("B2", 1)),
            hand.publish(f"dmp/v1/{rae}/no-session/info".encode(), change(rae, 2)),
            hand.publish(info, change(rae, 3), properties=b"\x26\x00\x01k" + (20_000).to_bytes(2) + b"v" * 20_000),
            hand.publish(info, change(rae, 4), flags=RETAIN, properties=b"\x26\x00\x01k\x00\x01v"),
        ]
        assert [await answered(hand, mid) for mid in taken] == [0] * len(taken)
        denied = [
            hand.publish(f"dmp/v1/B2/{SESSION}/info".encode(), change("B2", 1)),
            hand.publish(b"$SYS/broker/uptime", b"x"),
            hand.publish(f"dmp/v1/{rae}/rae/ack".encode(), b"{}"),
        ]
        assert [await answered(hand, mid) for mid in denied] == [0x87] * len(denied)
        hand.close()
        for topic, options in (
            (f"dmp/v1/{rae}/+/info".encode(), {}),
            (f"dmp/v1/{rae}/#".encode(), {}),
            (f"dmp/v1/{rae}/a\0b/info".encode(), {}),
            (f"dmp/v1/{rae}/\xff/info".encode("latin-1"), {}),
            (info, {"properties": b"\x26\x00\x01k\x00\x02\xc3\x28"}),
        ):
            hand = await connect()
            assert await answered(hand, hand.publish(topic, change(rae, 9), **options)) == -1, topic
        hand = await connect()
        assert await answered(hand, hand.publish(info, change(rae, 5), flags=DUP)) == 0
        hand.close()
        await until(lambda: len(read_all(kafka.bootstrap_servers, topics.info, 1)) == 2, "the good ones in Kafka")

    bridge.start()
    try:
        asyncio.run(scenario())
    finally:
        assert bridge.stop() == 0
    good = read_all(kafka.bootstrap_servers, topics.info, 1)
    assert [record.value() for record in good] == [change(rae, 4), change(rae, 5)]
    assert ("mqtt-user-k", b"v") in good[0].headers()
    dead = read_all(kafka.bootstrap_servers, topics.info_dead, 1)
    reasons = [dict(record.headers())["dmpd-reason"].decode() for record in dead]
    assert reasons == ["empty", "too_large", "malformed", "malformed", "mismatch", "bad_key", "too_large"]
    assert all(record.key().startswith(f"dmp/v1/{rae}/".encode()) for record in dead)
    assert dead[1].value() == big
