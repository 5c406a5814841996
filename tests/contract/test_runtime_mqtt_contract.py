"""What dmpd needs of an MQTT client and broker: the twin, Mosquitto and HiveMQ pass the same tests, on both loops.

HiveMQ ends a connection that exceeds its Receive Maximum of 10, and sends more only when all it sent is acknowledged.
"""

import asyncio
import uuid
from collections.abc import Callable

import pytest
import uvloop

from dmpd.runtime.mqtt import SESSION_TAKEN_OVER, Message, MqttClient, MqttUnreachableError, Will
from dmpd.runtime.mqtt_memory import MemoryBroker, matches
from dmpd.runtime.settings import MqttSettings
from tests.support.aio import until
from tests.support.hivemq import start_hivemq
from tests.support.services import public_folder

RECEIVE_MAXIMUM_EXCEEDED = 0x93


class Bench:
    """Connects principals to the broker under test and collects what they get."""

    def __init__(self, connect, settings: Callable[[str], MqttSettings], *, says_why: bool) -> None:
        self._connect = connect
        self._settings = settings
        self.says_why = says_why
        """Whether a connection that is taken over is told so; Mosquitto 2.0.11 hangs up without a word."""
        self.tag = uuid.uuid4().hex[:8]

    def rae(self, name: str) -> str:
        return f"{name}-{self.tag}"

    async def client(self, principal: str, *, acking: bool = False, **options):
        """A connected one, with lists that fill with its messages (acknowledged at once if ``acking``) and PUBACKs."""
        messages: list[Message] = []
        pubacks: list[tuple[int, int]] = []
        defaults = {"clean_start": True, "session_expiry_s": 0, "will": None, "receive_maximum": 100}
        client = await self._connect(
            self._settings(principal),
            client_id=principal,
            on_message=lambda message: (messages.append(message), acking and client.ack(message)),
            on_puback=lambda mid, code: pubacks.append((mid, code)),
            **(defaults | options),
        )
        return client, messages, pubacks

    @staticmethod
    async def publish_all(writer, topic: str, count: int, pubacks: list[tuple[int, int]]) -> list[int]:
        """The next numbers as payloads, within the broker's Receive Maximum; the mids, once all are answered."""
        before, mids = len(pubacks), []
        for n in range(before, before + count):
            await until(lambda: n - len(pubacks) < writer.server_receive_maximum, "room in the window")  # noqa: B023
            mids.append(writer.publish(topic, b"%d" % n, qos=1))
        await until(lambda: len(pubacks) == before + count, "PUBACKs")
        return mids


@pytest.fixture(
    params=[
        "twin",
        pytest.param("mosquitto", marks=pytest.mark.services),
        pytest.param("mosquitto-uvloop", marks=pytest.mark.services),
        pytest.param("hivemq-uvloop", marks=[pytest.mark.services, pytest.mark.slow]),
    ]
)
def run(request):
    """Runs a coroutine function with a bench on the chosen broker and loop."""
    if request.param == "twin":

        def start(test):
            async def main():
                broker = MemoryBroker(allow=acl)
                await test(Bench(broker.connect, lambda _: MqttSettings(), says_why=True))

            asyncio.run(main())
    else:
        service = request.getfixturevalue(request.param.partition("-")[0])
        runner = uvloop.run if request.param.endswith("uvloop") else asyncio.run
        says_why = request.param.startswith("hivemq")

        def start(test):
            runner(test(Bench(MqttClient.connect, service.settings, says_why=says_why)))

    return start


@pytest.fixture(scope="module")
def hivemq():
    with public_folder() as folder, start_hivemq(folder) as service:
        yield service


def acl(principal: str, action: str, topic: str) -> bool:
    """The acl_file's lines that these tests touch."""
    if principal == "svc-bridge":
        return action == "read" or topic.endswith("/ack")
    if action == "write":
        return topic.startswith(f"dmp/v1/{principal}/") and topic.endswith("/info")
    return topic in (f"dmp/v1/{principal}/rae/ack", f"dmp/v1/{principal}/rae/info")


def test_messages_arrive_in_order_and_pubacks_name_their_mid(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        reader, got, _ = await bench.client("svc-bridge", acking=True)
        assert await reader.subscribe([f"dmp/v1/{rae}/+/info"]) == [1]
        writer, _, pubacks = await bench.client(rae)
        mids = await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 50, pubacks)
        await until(lambda: len(got) == 50, "50 messages")
        assert [message.payload for message in got] == [b"%d" % n for n in range(50)]
        assert sorted(pubacks) == [(mid, 0) for mid in sorted(mids)]
        await writer.disconnect()
        await reader.disconnect()

    run(test)


def test_unacknowledged_messages_come_again_on_the_next_connection(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        reader, got, _ = await bench.client("svc-bridge", session_expiry_s=60)
        await reader.subscribe([f"dmp/v1/{rae}/+/info"])
        writer, _, pubacks = await bench.client(rae)
        await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 1, pubacks)
        await until(lambda: got, "the first message")
        await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 5, pubacks)
        reader.ack(got[0])
        await until(lambda: len(got) == 6, "six messages")
        await asyncio.sleep(0.1)  # lets the PUBACK arrive; the assertion below is what proves it
        reader.abort()
        again, got, _ = await bench.client("svc-bridge", clean_start=False)
        assert again.session_present
        await until(lambda: len(got) == 5, "the five unacknowledged ones")
        assert [message.payload for message in got] == [b"1", b"2", b"3", b"4", b"5"]
        assert all(message.dup for message in got)
        await again.disconnect()
        await writer.disconnect()

    run(test)


def test_will_is_published_on_abort_and_not_on_disconnect(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        topic = f"dmp/v1/{rae}/rae/info"
        reader, got, _ = await bench.client("svc-bridge")
        await reader.subscribe([topic])
        polite, _, _ = await bench.client(rae, will=Will(topic=topic, payload=b"lost"))
        await polite.disconnect()
        rude, _, _ = await bench.client(rae, will=Will(topic=topic, payload=b"lost"))
        rude.abort()
        await until(lambda: got, "the will")
        assert [message.payload for message in got] == [b"lost"]
        assert not got[0].retain
        await reader.disconnect()

    run(test)


def test_retained_copy_is_marked_and_comes_once_per_new_subscription(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        topic = f"dmp/v1/{rae}/rae/info"
        writer, _, pubacks = await bench.client(rae)
        writer.publish(topic, b"ready", qos=1, retain=True)
        await until(lambda: pubacks, "PUBACK")
        reader, got, _ = await bench.client("svc-bridge", session_expiry_s=60)
        await reader.subscribe([topic])
        await until(lambda: got, "the retained copy")
        assert got[0].retain
        reader.ack(got[0])
        await reader.subscribe([topic])
        writer.publish(topic, b"live", qos=1)
        await until(lambda: len(got) == 2, "the live message")
        assert (got[1].payload, got[1].retain) == (b"live", False)
        await reader.disconnect()
        await writer.disconnect()

    run(test)


def test_what_is_published_as_retained_can_be_told_from_the_rest_when_it_comes_live(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        topic = f"dmp/v1/{rae}/rae/info"
        reader, got, _ = await bench.client("svc-bridge", acking=True)
        await reader.subscribe([topic], retain_handling=2, retain_as_published=True)
        writer, _, _ = await bench.client(rae)
        writer.publish(topic, b"retained", qos=1, retain=True)
        writer.publish(topic, b"plain", qos=1)
        await until(lambda: len(got) == 2, "both messages")
        assert [(one.payload, one.retain) for one in got] == [(b"retained", True), (b"plain", False)]
        await reader.disconnect()
        again, later, _ = await bench.client("svc-bridge")
        await again.subscribe([topic], retain_handling=2, retain_as_published=True)
        writer.publish(topic, b"live", qos=1)
        await until(lambda: later, "the live message")
        assert later[0].payload == b"live", "the retained copy is not sent"
        await again.disconnect()
        await writer.disconnect()

    run(test)


def test_many_are_acknowledged_at_once_in_order(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        reader, got, _ = await bench.client("svc-bridge", session_expiry_s=60)
        await reader.subscribe([f"dmp/v1/{rae}/+/info"])
        writer, _, pubacks = await bench.client(rae)
        await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 1, pubacks)
        await until(lambda: got, "the first message")
        await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 7, pubacks)
        reader.ack_all(got[:1])
        await until(lambda: len(got) == 8, "all")
        reader.ack_all(got[1:8])
        await reader.disconnect()
        again, got, _ = await bench.client("svc-bridge", clean_start=False)
        writer.publish(f"dmp/v1/{rae}/rae/info", b"since", qos=1)
        await until(lambda: got, "the one that came since")
        assert [(message.payload, message.dup) for message in got] == [(b"since", False)]
        await again.disconnect()
        await writer.disconnect()

    run(test)


def test_foreign_topic_is_refused_with_0x87_and_nobody_listening_is_0x10(run):
    async def test(bench: Bench) -> None:
        # A session that an earlier test left on the shared broker would count as somebody listening.
        left_over, _, _ = await bench.client("svc-bridge")
        await left_over.disconnect()
        rae = bench.rae("R")
        writer, _, pubacks = await bench.client(rae)
        foreign = writer.publish(f"dmp/v1/{bench.rae('S')}/rae/info", b"x", qos=1)
        alone = writer.publish(f"dmp/v1/{rae}/rae/info", b"x", qos=1)
        await until(lambda: len(pubacks) == 2, "two PUBACKs")
        assert dict(pubacks) == {foreign: 0x87, alone: 0x10}
        await writer.disconnect()

    run(test)


def test_second_connection_of_a_name_ends_the_first(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        first, _, _ = await bench.client(rae)
        second, _, _ = await bench.client(rae)
        await until(first.closed.done, "the first is closed")
        assert first.close_reason_code == SESSION_TAKEN_OVER or not bench.says_why
        assert not second.closed.done()
        await second.disconnect()
        assert second.closed.done()

    run(test)


@pytest.mark.services
@pytest.mark.slow
def test_hivemq_ends_a_connection_that_exceeds_its_receive_maximum(hivemq):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        reader, _, _ = await bench.client("svc-bridge", acking=True)
        await reader.subscribe([f"dmp/v1/{rae}/+/info"])
        writer, _, _ = await bench.client(rae)
        assert writer.server_receive_maximum == 10
        for n in range(200):
            writer.publish(f"dmp/v1/{rae}/rae/info", b"%d" % n, qos=1)
        await until(writer.closed.done, "the broker has hung up")
        assert writer.close_reason_code == RECEIVE_MAXIMUM_EXCEEDED
        await reader.disconnect()

    uvloop.run(test(Bench(MqttClient.connect, hivemq.settings, says_why=True)))


@pytest.mark.services
@pytest.mark.slow
def test_hivemq_keeps_what_it_acknowledged_through_a_kill(hivemq):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        reader, _, _ = await bench.client("svc-bridge", session_expiry_s=600)
        await reader.subscribe([f"dmp/v1/{rae}/+/info"])
        await reader.disconnect()
        writer, _, pubacks = await bench.client(rae)
        await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 50, pubacks)
        hivemq.process.kill()
        hivemq.process.start()  # it ends with the thread that starts it: not with one of the loop's
        again, got, _ = await bench.client("svc-bridge", clean_start=False, acking=True)
        assert again.session_present
        await until(lambda: len(got) == 50, "all that was acknowledged")
        assert [message.payload for message in got] == [b"%d" % n for n in range(50)]
        await again.disconnect()

    uvloop.run(test(Bench(MqttClient.connect, hivemq.settings, says_why=True)))


def test_paused_reading_delivers_nothing_until_resumed(run):
    async def test(bench: Bench) -> None:
        rae = bench.rae("R")
        reader, got, _ = await bench.client("svc-bridge", acking=True)
        await reader.subscribe([f"dmp/v1/{rae}/+/info"])
        writer, _, pubacks = await bench.client(rae)
        reader.pause_reading()
        await bench.publish_all(writer, f"dmp/v1/{rae}/rae/info", 20, pubacks)
        assert got == []
        reader.resume_reading()
        await until(lambda: len(got) == 20, "all after the resume")
        await reader.disconnect()
        await writer.disconnect()

    run(test)


@pytest.mark.services
def test_missing_certificate_is_named(mosquitto):
    settings = mosquitto.settings("R-nofile")
    broken = MqttSettings(
        port=settings.port, ca_file=settings.ca_file, cert_file="/nowhere/client.crt", key_file=settings.key_file
    )

    async def main() -> None:
        await MqttClient.connect(
            broken,
            client_id="R-nofile",
            clean_start=False,
            session_expiry_s=0,
            will=None,
            on_message=lambda _: None,
            on_puback=lambda *_: None,
            receive_maximum=10,
        )

    with pytest.raises(MqttUnreachableError, match=r"/nowhere/client\.crt"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("pattern", "topic", "covered"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/+", "a/b/c", False),
    ],
)
def test_filters(pattern, topic, covered):
    assert matches(pattern, topic) is covered
