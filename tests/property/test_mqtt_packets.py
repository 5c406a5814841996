"""What the client of thousands writes reads back as it was meant; what it reads may be anything."""

from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from dmpd.runtime import mqtt_packets as packets
from dmpd.runtime.mqtt_frames import Frames, Message, ProtocolError

topics = st.text("abc/é", min_size=1, max_size=300)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 65_535), topics, st.binary(max_size=20_000)), max_size=5))
def test_publishes_are_cut_and_read_as_they_were_written(sent):
    (found,) = [Frames().feed(b"".join(packets.publish(*one) for one in sent))]
    assert [(one.mid, one.topic, one.payload) for one in found if isinstance(one, Message)] == sent
    assert all(isinstance(one, Message) and one.qos == 1 and not one.retain for one in found)


@settings(deadline=None)
@given(st.text("abc-1", min_size=1, max_size=60), st.booleans(), st.integers(0, 65_535), st.integers(0, 2**32 - 1))
def test_connect_is_one_packet_with_its_flags(name, clean, keepalive_s, expiry_s):
    packet = packets.connect(name, clean_start=clean, keepalive_s=keepalive_s, session_expiry_s=expiry_s)
    assert Frames().feed(packet) == [packet]
    assert packet[0] == 0x10
    assert b"\x00\x04MQTT\x05" + bytes((2 if clean else 0,)) + keepalive_s.to_bytes(2) in packet
    assert (b"\x11" + expiry_s.to_bytes(4) in packet) == (expiry_s > 0)
    assert packet.endswith(len(name).to_bytes(2) + name.encode())


@settings(deadline=None)
@given(st.integers(0, 255), st.booleans(), st.integers(1, 65_535), st.text(max_size=50), st.text("xyz", max_size=50))
def test_connacks_are_read_whatever_else_they_say(code, present, maximum, reason, pair):
    properties = Properties(PacketTypes.CONNACK)
    properties.ReceiveMaximum = maximum
    properties.ServerKeepAlive = 30
    properties.AssignedClientIdentifier = "x"
    properties.ReasonString = reason.replace("\0", "")
    properties.UserProperty = [(pair, pair), ("a", "b")]
    body = bytes((int(present), code)) + properties.pack()
    packet = b"\x20" + packets._varint(len(body)) + body
    assert packets.read_connack(packet) == packets.Connack(code, present, maximum)
    assert packets.read_connack(b"\x20\x03" + bytes((int(present), code)) + b"\x00").receive_maximum == 65_535


@settings(deadline=None)
@given(st.integers(1, 65_535), st.sampled_from([0, 0x10, 0x87, 0x97]))
def test_pubacks_are_read_short_and_long(mid, code):
    assert packets.read_puback(b"\x40\x02" + mid.to_bytes(2)) == (mid, 0)
    assert packets.read_puback(b"\x40\x03" + mid.to_bytes(2) + bytes((code,))) == (mid, code)
    assert packets.read_puback(b"\x40\x04" + mid.to_bytes(2) + bytes((code, 0))) == (mid, code)


@settings(deadline=None)
@given(st.integers(1, 65_535), st.lists(st.sampled_from([0, 1, 0x87]), min_size=1, max_size=9))
def test_subacks_are_read_with_every_code(mid, codes):
    packet = b"\x90" + bytes((3 + len(codes),)) + mid.to_bytes(2) + b"\x00" + bytes(codes)
    assert packets.read_suback(packet) == (mid, codes)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_from_a_broker_end_in_anything_but_a_protocol_error(data):
    readers = {
        packets.CONNACK: packets.read_connack,
        packets.PUBACK: packets.read_puback,
        packets.SUBACK: packets.read_suback,
        packets.DISCONNECT: packets.read_disconnect,
    }
    try:
        for packet in Frames().feed(data):
            if not isinstance(packet, Message) and packets.kind_of(packet) in readers:
                readers[packets.kind_of(packet)](packet)
    except ProtocolError:
        return
