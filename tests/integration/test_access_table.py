"""Every principal, every topic, every way: what the design's table says, on Mosquitto and on the twin.

Publishing (plain, as a will, by a topic alias), receiving (live, retained), subscribing (exact, wide, shared).
The table is ``tests/support/access_table.py``; the rules are what ``dmpd access`` makes of the grants.
"""

import asyncio
import contextlib
import struct

import pytest

from dmpd.access import dynsec
from dmpd.access.acl_file import AclFile
from dmpd.access.memory import MemoryRules
from dmpd.access.plan import changes, difference, wanted
from dmpd.lab.layout import ETC
from dmpd.model.grants import rules
from dmpd.runtime.mqtt import MqttClient
from tests.support import access_table as table
from tests.support.access import Party, start_dynsec
from tests.support.aio import async_test
from tests.support.grants import S1, at, grant
from tests.support.mqtt_raw import RawClient, client_tls
from tests.support.services import public_folder

pytestmark = pytest.mark.services
NOT_AUTHORIZED = 0x87
NO_SUBSCRIBER = 0x10
TOPIC_ALIAS = 0x23
TESTER = "tester"
"""May do everything but what begins with $, by a rule of the test's own."""
CONTROL = "$CONTROL/dynamic-security/v1"
SYSTEM = "$SYS/broker/version"
GRANTS = (
    grant("read", "u-read", rae=table.GRANTED, session=S1, level="read"),
    grant("cmnd", "u-command", rae=table.GRANTED, session=S1, level="command"),
    grant("alll", "u-all", rae=table.GRANTED, session=None, level="command"),
    grant("over", "u-after", rae=table.GRANTED, session=S1, level="command", end=5),
)
USERS = ("u-none", "u-after")
LATER = 10
"""Minutes: u-after's grant is over."""
PARTIES = [name for name in table.PRINCIPALS if name != "svc-access"]
"""svc-access is the connection that gives the rules: that it works is what it may do."""


async def give(access):
    """First with u-after's grant, then without it: he keeps what every user holds."""
    for minute in (1, LATER):
        target = wanted(rules(GRANTS, at(minute)), USERS)
        for change in changes(target, await access.read()):
            await access.apply(change)
        assert difference(target, await access.read()) == 0


@pytest.fixture(scope="module")
def broker():
    """A Mosquitto that holds the rules of the grants."""
    own = f"\nuser {TESTER}\ntopic readwrite #\n"
    with public_folder() as folder, start_dynsec(folder, rules=own) as service:

        async def main():
            access = await dynsec.connect(service.settings("svc-access"), answer_timeout_s=30)
            await give(access)
            await access.close()

        asyncio.run(main())
        yield service


@contextlib.asynccontextmanager
async def party(broker, name):
    found = Party(name, MqttClient.connect, broker.settings(name))
    await found.connect()
    try:
        yield found
    finally:
        await found.client.disconnect()


@pytest.fixture(scope="module")
def twin():
    held = MemoryRules(AclFile((ETC / "mosquitto" / "acl").read_text()))

    async def main():
        await give(await held.connect())

    asyncio.run(main())
    return held


@pytest.mark.parametrize("me", table.PRINCIPALS)
def test_the_twin_lets_pass_what_the_table_says(twin, me):
    assert {topic for topic in table.topics(me) if twin.allows(me, "write", topic)} == table.may_publish(me)
    assert {topic for topic in table.topics(me) if twin.allows(me, "read", topic)} == table.receives(me)
    assert [one for one in table.granted_filters(me) if not twin.allows(me, "subscribe", one)] == []
    allowed = [one for one in table.refused_filters(me) if twin.allows(me, "subscribe", one)]
    assert allowed == (table.refused_filters(me) if me in table.UNKNOWN_TO_RULES else [])


@async_test
async def _publishing(broker, me):
    async with party(broker, me) as one:
        codes = {topic: await one.publish(topic, b"{}") for topic in table.topics(me)}
    allowed = {topic for topic, code in codes.items() if code != NOT_AUTHORIZED}
    assert allowed == table.may_publish(me)


@pytest.mark.parametrize("me", PARTIES)
def test_publishing(broker, me):
    _publishing(broker, me)


@async_test
async def _subscribing(broker, me):
    async with party(broker, me) as one:
        granted = await one.subscribe(*table.granted_filters(me))
        refused = await one.subscribe(*table.refused_filters(me))
    assert set(granted) <= {1}
    answers = dict(zip(table.refused_filters(me), refused, strict=True))
    expected = 1 if me in table.UNKNOWN_TO_RULES else NOT_AUTHORIZED
    assert {filter_: code for filter_, code in answers.items() if code != expected} == {}


@pytest.mark.parametrize("me", PARTIES)
def test_subscribing(broker, me):
    _subscribing(broker, me)


@async_test
async def _receiving(broker, me):
    """Retained messages that were there before, then live ones, by every filter that there is."""
    plain = [topic for topic in table.topics(me) if not topic.startswith("$")]
    async with party(broker, TESTER) as tester, party(broker, me) as one:
        for topic in plain:
            tester.client.publish(topic, b"kept", qos=1, retain=True)
        await tester.publish("elsewhere", b"behind all that")
        await one.subscribe(*table.granted_filters(me), *table.refused_filters(me))
        for topic in plain:
            await tester.publish(topic, b"live")
        await one.subscribe(*table.granted_filters(me), "dmp/v1/nobody")  # answered behind all that was sent before
        for topic in plain:
            tester.client.publish(topic, b"", qos=1, retain=True)
        await tester.publish("elsewhere", b"behind all that")
    expected = {topic for topic in table.receives(me) if not topic.startswith("$")}
    for payload in (b"kept", b"live"):
        assert {topic for topic, content in one.received if content == payload} == expected, payload
    assert (SYSTEM in {topic for topic, _ in one.received}) == (SYSTEM in table.receives(me))


@pytest.mark.parametrize("me", PARTIES)
def test_receiving(broker, me):
    _receiving(broker, me)


@async_test
async def test_answers_to_control_reach_svc_access_alone(broker):
    async with contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(party(broker, name)) for name in PARTIES]
        for one in others:
            await one.subscribe(f"{CONTROL}/response", "$CONTROL/#")
        access = await dynsec.connect(broker.settings("svc-access"), answer_timeout_s=30)
        assert (await access.read()).users  # it has its answers
        for one in others:
            await one.subscribe("dmp/v1/nobody")
            assert [topic for topic, _ in one.received if topic.startswith("$CONTROL")] == [], one.name
        assert await others[0].publish("dmp/v1/GR1/S1/info") == NOT_AUTHORIZED
        await access.close()


def _will_topics(me):
    """One of each kind is enough: a will passes the same check as a publish, at another time."""
    chosen = ("dmp/v1/{me}/rae/info", f"dmp/v1/GR1/{S1}/info", f"dmp/v1/GR1/{S1}/cmd/{{me}}", "dmp/v1/GR1/rae/ack")
    return [topic.format(me=me) for topic in chosen]


@async_test
async def _wills(broker, me):
    """``lost`` of one who dies without a word reaches who may hear it, if it might have said that itself."""
    async with party(broker, TESTER) as tester:
        await tester.subscribe("dmp/#")
        for topic in _will_topics(me):
            client = RawClient(broker.port, client_tls(broker, me), me, will=(topic, f"will {me}"))
            client.abort()
        again = RawClient(broker.port, client_tls(broker, me), me)  # the broker has dealt with the former ones
        again.close()
        for topic in _will_topics(me):
            if topic in table.may_publish(me):
                assert await tester.hears(topic, f"will {me}".encode())
        await tester.publish("dmp/v1/nobody/x/info", b"behind all that")
        await tester.hears("dmp/v1/nobody/x/info", b"behind all that")
    heard = {topic for topic, payload in tester.received if payload == f"will {me}".encode()}
    assert heard == table.may_publish(me) & set(_will_topics(me))


@pytest.mark.parametrize("me", PARTIES)
def test_wills(broker, me):
    _wills(broker, me)


@pytest.mark.parametrize("me", ["R9", "svc-bridge", "u-none", "u-command", "u-unknown"])
def test_a_topic_alias_opens_nothing(broker, me):
    """An alias that a refused message has set is refused as well; one of an allowed topic goes where that leads."""
    client = RawClient(broker.port, client_tls(broker, me), me)
    try:
        for alias, topic in enumerate((f"dmp/v1/FR2/{S1}/info", f"dmp/v1/GR1/{S1}/cmd/{me}"), start=1):
            properties = struct.pack(">BH", TOPIC_ALIAS, alias)
            allowed = topic in table.may_publish(me)
            for name in (topic, ""):
                code = client.publish(name, properties=properties)
                assert (code in (0, NO_SUBSCRIBER)) == allowed, (topic, name, code)
                assert allowed or code == NOT_AUTHORIZED, (topic, name, code)
    finally:
        client.close()


@async_test
async def test_retained_by_a_user_stays_with_nobody_else(broker):
    """A user may retain a request; the RAE ignores such, and nobody without a right to the topic gets it."""
    topic = f"dmp/v1/GR1/{S1}/cmd/u-command"
    client = RawClient(broker.port, client_tls(broker, "u-command"), "u-command")
    assert client.publish(topic, b"kept", retain=True) in (0, NO_SUBSCRIBER)
    client.close()
    async with party(broker, "u-read") as reader, party(broker, "GR1") as rae, party(broker, TESTER) as tester:
        assert await reader.subscribe(topic) == [NOT_AUTHORIZED]
        await rae.subscribe("dmp/v1/GR1/+/cmd/+")
        assert await rae.hears(topic, b"kept")
        tester.client.publish(topic, b"", qos=1, retain=True)
        await tester.publish("elsewhere")
