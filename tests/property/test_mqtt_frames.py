"""The bytes of MQTT 5, read by us and written by paho, and the reverse; cut anywhere; broken anywhere."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from dmpd.runtime.mqtt_frames import Frames, Message, ProtocolError, pubacks, publish_qos0

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
TOPICS = TEXT.map(lambda text: "dmp/" + text.translate({ord("+"): None, ord("#"): None}))
MESSAGES = st.builds(
    Message,
    topic=TOPICS,
    payload=st.one_of(st.binary(max_size=300), st.integers(0, 20_000).map(bytes)),
    qos=st.integers(0, 1),
    retain=st.booleans(),
    dup=st.booleans(),
    mid=st.integers(1, 65_535),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    properties=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    content_type=st.none() | TEXT,
    correlation_data=st.none() | st.binary(max_size=40),
    malformed=st.none(),
).map(lambda one: one if one.qos else one._replace(mid=0, dup=False))
OTHERS = st.sampled_from([b"\xd0\x00", b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x01", b"\xe0\x00"])


class Wire:
    """What paho takes for a socket; keeps what it sends, gives what it should read."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.coming = bytearray()

    def setblocking(self, _: object) -> None: ...

    def close(self) -> None: ...

    def send(self, data) -> int:
        self.sent += data
        return len(data)

    def recv(self, size: int) -> bytes:
        if not self.coming:
            raise BlockingIOError
        found = bytes(self.coming[:size])
        del self.coming[:size]
        return found


class Pipe(paho.Client):
    wire: Wire

    def _create_socket(self) -> Wire:
        return self.wire


def paho_client() -> Pipe:
    pipe = Pipe(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5, reconnect_on_failure=False)
    pipe.wire = Wire()
    pipe.connect("nowhere", 1)
    pipe.wire.sent.clear()
    return pipe


def written_by_paho(message: Message) -> bytes:
    properties = Properties(PacketTypes.PUBLISH)
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    if message.properties:
        properties.UserProperty = list(message.properties)
    if message.content_type is not None:
        properties.ContentType = message.content_type
    if message.correlation_data is not None:
        properties.CorrelationData = message.correlation_data
    properties.ResponseTopic = "somewhere"
    properties.PayloadFormatIndicator = 1
    pipe = paho_client()
    name, info = message.topic.encode(), paho.MQTTMessageInfo(message.mid)
    flags = (message.qos, message.retain, message.dup, info)
    pipe._send_publish(message.mid, name, message.payload, *flags, properties)
    return bytes(pipe.wire.sent)


@given(st.lists(st.one_of(MESSAGES, OTHERS), max_size=6), st.data())
def test_what_paho_writes_is_read_the_same_wherever_the_stream_is_cut(items, data) -> None:
    stream = b"".join(written_by_paho(item) if isinstance(item, Message) else item for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, found = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.feed(stream[start:end])
    assert found == items


@given(TOPICS, st.one_of(st.binary(max_size=300), st.integers(0, 20_000).map(bytes)))
def test_what_we_write_is_read_the_same_by_paho(topic, payload) -> None:
    got: list[tuple[str, bytes, int]] = []
    pipe = paho_client()
    pipe.on_message = lambda client, _, message: got.append((message.topic, message.payload, message.qos))
    pipe.wire.coming += publish_qos0(topic, payload)
    pipe.loop_read()
    assert got == [(topic, payload, 0)]


def test_pubacks_stand_in_the_order_asked_for() -> None:
    assert pubacks([1, 0x1234]) == b"\x40\x02\x00\x01\x40\x02\x12\x34"


@given(MESSAGES, st.data())
def test_a_broken_packet_is_a_protocol_error_or_another_message_and_nothing_else(message, data) -> None:
    packet = bytearray(written_by_paho(message))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        Frames().feed(bytes(packet))


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"\x32\x0b\x00\x03a/b\x00\x07\x00{}?", Message("a/b", b"{}?", 1, False, False, 7)),
        (b"\x3b\x08\x00\x01a\x00\x07\x00{}", Message("a", b"{}", 1, True, True, 7)),
        (b"\x30\x04\x00\x01\xff\x00", Message("\ufffd", b"", 0, False, False, 0, malformed="topic")),
        (
            b"\x30\x0c\x00\x01a\x08\x26\x00\x01k\x00\x02\xc3\x28",
            Message("a", b"", 0, False, False, 0, None, (("k", "\ufffd("),), malformed="user property"),
        ),
        (
            b"\x30\x08\x00\x01a\x04\x03\x00\x01\xff",
            Message("a", b"", 0, False, False, 0, content_type="\ufffd", malformed="content type"),
        ),
        (b"\x30\x07\x00\x01a\x03\x0b\x80\x01", Message("a", b"", 0, False, False, 0)),
    ],
    ids=["plain", "dup and retained", "topic", "user property", "content type", "subscription id"],
)
def test_bad_text_costs_no_connection(packet, message) -> None:
    assert Frames().feed(packet) == [message]


@pytest.mark.parametrize(
    ("packet", "sentence"),
    [
        (b"\x34\x06\x00\x01a\x00\x01\x00", "a message of QoS 2"),
        (b"\x30\x03\x00\x00\x00", "a PUBLISH that ends early, or without a topic"),
        (b"\x30\x03\x00\x09a", "a PUBLISH that ends early, or without a topic"),
        (b"\x32\x03\x00\x01a", "a PUBLISH that ends early, or without a topic"),
        (b"\x30\x05\x00\x01a\x09\x26", "properties that end behind their packet"),
        (b"\x30\x06\x00\x01a\x02\x26\x00", "properties that end early"),
        (b"\x30\x08\x00\x01a\x04\x26\x00\x09k", "properties that end early"),
        (b"\x30\x07\x00\x01a\x03\x23\x00\x01", "a PUBLISH with a topic alias, though we allow none"),
        (b"\x30\x06\x00\x01a\x02\x7f\x00", "a PUBLISH with property 0x7f"),
        (b"\x30\xff\xff\xff\xff\x01", "a length of more than four bytes"),
    ],
)
def test_what_is_no_mqtt_5_says_why(packet, sentence) -> None:
    with pytest.raises(ProtocolError, match=f"^{sentence}$"):
        Frames().feed(packet)
