"""What one client makes of what it hears: its own is answered, another's is a hole, what was left behind is told."""

import ssl
import zlib

import pytest

from dmpd.canary.arrivals import Finding
from dmpd.canary.client import CanaryClient, Share
from dmpd.canary.history import History
from dmpd.canary.plan import Plan, payload, rae_of, session_of
from dmpd.model.codec import decode, encode
from dmpd.model.messages import Durable, Request
from dmpd.model.topics import ack_topic, cmd_topic, info_topic, parse_topic, rsp_topic
from dmpd.runtime.mqtt_frames import Message
from dmpd.runtime.mqtt_mass import Opened
from tests.support.aio import async_test
from tests.support.messages import AT

PLAN = Plan(run="00000000-0000-0000-0000-000000000001", seed=1, epoch=9, first=1, last=3, changes=30, started_ms=1)
NUMBER = 2
RAE, SESSION = rae_of(NUMBER), session_of(PLAN.run, NUMBER)


class Broker:
    """In the place of the connection: takes everything, and says what it is told to."""

    def __init__(self, *, session_present=False, code=0):
        self.closed = None
        self.in_flight = {}
        self.published = []
        self.subscribed = []
        self.on_message = lambda _: None
        self._opened = Opened(0.1, 0.2, 0.3, 0, 0, code, session_present)
        self.retained, self.pinged = [], False

    async def open(self, address, context, *, clean_start, timeout_s):
        assert not clean_start, "an older session must show"
        return self._opened

    async def subscribe(self, filters, *, retained=False):
        self.subscribed += filters
        if retained:
            for message in self.retained:
                self.on_message(message)

    async def ping(self):
        self.pinged = True

    def publish(self, topic, content, key):
        if self.closed is not None:
            raise ConnectionError(self.closed)
        self.in_flight[len(self.published)] = key
        self.published.append((topic, content, key))

    def leave(self):
        self.closed = "left"


@pytest.fixture
def share():
    return Share(
        plan=PLAN,
        history=History(PLAN),
        began_ns=0,
        heard=Finding(),
        taken=Finding(),
        disconnects=Finding(),
        leftovers=Finding(),
    )


@pytest.fixture
def client(share):
    return make(share, Broker())


def make(share, broker):
    found = CanaryClient(NUMBER, share, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    heard = found.mqtt.on_message
    found.mqtt = broker
    broker.on_message = heard
    return found


def heard(topic, content):
    return Message(topic, content, 1, False, False, 1)


def hear(client, topic, message):
    client.mqtt.on_message(heard(topic, message if isinstance(message, bytes) else encode(message)))


def request(name="r-1"):
    return Request(v=1, rae=RAE, session=SESSION, at=AT, id=name, verb="probe")


def outcomes(client):
    return [decode(content, parse_topic(topic)).outcome for topic, content, _ in client.mqtt.published]


def test_a_message_is_noted_with_what_it_says_and_its_puback(client, share):
    client.send(1)
    place = share.history.place(NUMBER, 1)
    ((topic, content, key),) = client.mqtt.published
    assert (topic, key) == (info_topic(RAE, SESSION), 1)
    assert share.history.crc[place] == zlib.crc32(content)
    assert decode(content, parse_topic(topic)).rev == 1
    client._acked(1, 0)
    assert (share.history.code[place], share.history.acked_ns[place] >= share.history.sent_ns[place] > 0) == (0, True)


def test_what_is_over_the_window_waits_in_its_order_and_counts_from_when_it_was_due(client, share):
    for slot in range(2, 27):
        client.send(slot)
    assert [key for *_, key in client.mqtt.published] == list(range(2, 22))
    assert client.unsent == 5
    due_ns = [at_ns for _, at_ns in client._waiting]
    client.mqtt.in_flight.clear()
    client._acked(2, 0)
    assert [key for *_, key in client.mqtt.published] == list(range(2, 27))
    assert [share.history.sent_ns[share.history.place(NUMBER, slot)] for slot in range(22, 27)] == due_ns


def test_durable_of_this_run_is_noted_and_of_another_is_not(client, share):
    for epoch, stored in ((PLAN.epoch, [(1, 3)]), (PLAN.epoch - 1, [(4, 6)])):
        hear(client, ack_topic(RAE), Durable(v=1, rae=RAE, session="rae", at=AT, epoch=epoch, stored=stored))
    assert [bool(share.history.durable_ns[share.history.place(NUMBER, slot)]) for slot in range(1, 7)] == [
        *[True] * 3,
        *[False] * 3,
    ]
    assert share.heard.count == 0


def test_a_request_is_accepted_and_done_and_again_only_done(client, share):
    for _ in range(2):
        hear(client, cmd_topic(RAE, SESSION, "svc-canary"), request())
    assert outcomes(client) == ["accepted", "done", "done"]
    assert share.answered == 1


@pytest.mark.parametrize(
    ("topic", "content"),
    [
        (info_topic(rae_of(3), "rae"), payload(PLAN, 3, 0, 1)),
        (cmd_topic(rae_of(22), SESSION, "u-1"), b"{}"),  # its own name is how that one's begins
        (ack_topic(RAE), b"no json"),
    ],
)
def test_whatever_is_not_its_own_is_a_hole(client, share, topic, content):
    hear(client, topic, content)
    assert share.heard.count == 1
    assert share.heard.examples[0].startswith(f"{RAE}: heard {topic}")


@pytest.mark.parametrize(("code", "holes"), [(0x87, 0), (0x00, 1), (0x10, 1), (0x80, 1)])
def test_only_a_refusal_answers_what_is_anothers_to_say(client, share, code, holes):
    client.probe_writes(3)
    topics = [topic for topic, *_ in client.mqtt.published]
    name, session = rae_of(3), session_of(PLAN.run, 3)
    assert topics == [
        info_topic(name, session),
        cmd_topic(name, session, RAE),
        rsp_topic(name, session, RAE),
        ack_topic(RAE),
    ]
    for *_, key in client.mqtt.published:
        client._acked(key, code)
    assert (share.taken.count, share.refusals) == (4 * holes, 4 * (1 - holes))


@async_test
async def test_probes_subscribe_to_a_neighbour_and_some_to_all(client):
    await client.probe_reads(3, wide=False)
    assert client.mqtt.subscribed == [f"dmp/v1/{rae_of(3)}/+/info", f"dmp/v1/{rae_of(3)}/+/cmd/+"]
    await client.probe_reads(3, wide=True)
    assert client.mqtt.subscribed[-1] == "#"


@async_test
async def test_a_session_that_was_there_before_is_told_and_a_new_one_is_not(share):
    await make(share, Broker()).arrive(None, timeout_s=1)
    assert share.leftovers.count == 0
    await make(share, Broker(session_present=True)).arrive(None, timeout_s=1)
    assert share.leftovers.examples == [f"{RAE}: an MQTT session from before the run"]


@async_test
async def test_behind_the_run_a_session_and_a_retained_message_are_told(share):
    broker = Broker(session_present=True)
    broker.retained = [heard(info_topic(RAE, "rae"), b"{}")]
    await make(share, broker).look(None, timeout_s=1)
    assert share.leftovers.examples == [
        f"{RAE}: an MQTT session after the run",
        f"{RAE}: a retained message on {info_topic(RAE, 'rae')}",
    ]
    assert (broker.pinged, broker.closed) == (True, "left"), "it waits for what the broker has before it leaves"


@async_test
async def test_a_client_of_the_crowd_does_not_ask_for_what_is_retained(client, share):
    client.mqtt.retained = [heard(info_topic(rae_of(3), "rae"), b"{}")]
    await client.arrive(None, timeout_s=1)
    await client.probe_reads(3, wide=True)
    assert (share.heard.count, share.leftovers.count) == (0, 0)


@async_test
async def test_who_cannot_look_has_not_looked(share):
    with pytest.raises(ConnectionError, match="CONNACK 0x87"):
        await make(share, Broker(code=0x87)).look(None, timeout_s=1)


def test_a_connection_that_ends_too_early_is_told_and_its_pubacks_promise_nothing(client, share):
    client.send(1)
    client._acked(1, 0)
    assert share.history.promised(NUMBER, 1)
    client._broken("the broker hung up")
    assert share.disconnects.examples == [f"{RAE}: the broker hung up"]
    assert not share.history.promised(NUMBER, 1)
    client.mqtt.closed = "gone"
    client.send(2)
    client.probe_writes(3)
    assert len(client.mqtt.published) == 1
    assert client.idle
