"""The broker's rules: every line of etc/mosquitto/acl, allowed and denied, with real certificates."""

import asyncio
import uuid
from contextlib import asynccontextmanager

import msgspec
import pytest

from dmpd.lab.certificates import CertificateAuthority
from dmpd.runtime.mqtt import Message, MqttClient, MqttRefusedError, MqttUnreachableError
from tests.support.aio import async_test
from tests.support.services import MosquittoService, public_folder

pytestmark = pytest.mark.services

NOT_AUTHORIZED = 0x87
SESSION = "7b0a36d2-6c1f-4c3f-9c30-0b1f7f7a2f10"
WAIT_S = 60.0


class Party:
    """One connected principal: what it received, and the broker's answer to each of its publishes."""

    def __init__(self, name):
        self.name = name
        self.received: list[tuple[str, bytes]] = []
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._news = asyncio.Event()
        self.client: MqttClient

    async def connect(self, broker: MosquittoService, *, client_id=None):
        self.client = await MqttClient.connect(
            broker.settings(self.name),
            client_id=client_id or self.name,
            clean_start=True,
            session_expiry_s=0,
            will=None,
            on_message=self._on_message,
            on_puback=self._on_puback,
            receive_maximum=100,
        )

    async def publish(self, topic, payload=b"x") -> int:
        """Publish at QoS 1; returns the reason code of the PUBACK."""
        mid = self.client.publish(topic, payload, qos=1)
        return await asyncio.wait_for(self._future(mid), WAIT_S)

    async def hears(self, topic, payload=None) -> bool:
        """Whether a message (with this payload) arrives on ``topic``. Waits for it."""
        async with asyncio.timeout(WAIT_S):
            while not any(seen[0] == topic and payload in (None, seen[1]) for seen in self.received):
                self._news.clear()
                await self._news.wait()
        return True

    def _future(self, mid):
        return self._acks.setdefault(mid, asyncio.get_running_loop().create_future())

    def _on_puback(self, mid, reason_code):
        self._future(mid).set_result(reason_code)

    def _on_message(self, message: Message):
        self.received.append((message.topic, message.payload))
        self._news.set()
        if message.qos:
            self.client.ack(message)


@asynccontextmanager
async def parties(broker: MosquittoService, *names):
    """Connect all ``names``, in order; disconnect them behind."""
    found = [Party(name) for name in names]
    connected = []
    try:
        for party in found:
            await party.connect(broker)
            connected.append(party)
        yield found
    finally:
        for party in connected:
            if not party.client.closed.done():
                await party.client.disconnect()


@pytest.fixture
def rae():
    return f"acl-{uuid.uuid4().hex[:8]}"


@async_test
async def test_a_rae_publishes_under_its_own_serial_only(mosquitto, rae):
    other = f"{rae}-other"
    async with parties(mosquitto, rae, "svc-bridge") as (edge, bridge):
        await bridge.client.subscribe(["dmp/v1/+/+/info", "dmp/v1/+/+/rsp/+"])
        for tail in (f"{SESSION}/info", "rae/info", f"{SESSION}/rsp/u-team1", "rae/rsp/op-anna"):
            assert await edge.publish(f"dmp/v1/{rae}/{tail}", tail.encode()) == 0
            assert await bridge.hears(f"dmp/v1/{rae}/{tail}", tail.encode())
            assert await edge.publish(f"dmp/v1/{other}/{tail}") == NOT_AUTHORIZED
        for topic in (
            f"dmp/v1/{rae}/{SESSION}/cmd/u-team1",
            f"dmp/v1/{rae}/rae/ack",
            f"dmp/v1/{rae}/info",
            f"dmp/v1/{rae}/{SESSION}/info/more",
            "dmp/v1/rae/info",
            "elsewhere",
            "$CONTROL/dynamic-security/v1",
        ):
            assert await edge.publish(topic) == NOT_AUTHORIZED, topic
        assert other not in {topic.split("/")[2] for topic, _ in bridge.received}


@async_test
async def test_a_rae_receives_only_what_is_meant_for_it(mosquitto, rae):
    other = f"{rae}-other"
    async with parties(mosquitto, rae, other, "svc-bridge") as (edge, neighbour, bridge):
        await edge.client.subscribe(["#"])  # never refused without a rule of the plugin; delivery is the gate
        assert await neighbour.publish(f"dmp/v1/{other}/{SESSION}/info", b"secret") in (0x00, 0x10)
        assert await neighbour.publish(f"dmp/v1/{other}/rae/info", b"secret") in (0x00, 0x10)
        assert await edge.publish(f"dmp/v1/{rae}/rae/info", b"own status") in (0x00, 0x10)
        for serial in (other, rae):
            await bridge.publish(f"dmp/v1/{serial}/{SESSION}/cmd/u-team1", b"cmd")
            await bridge.publish(f"dmp/v1/{serial}/rae/ack", b"ack")
        assert await edge.hears(f"dmp/v1/{rae}/rae/ack", b"ack")
        assert sorted(edge.received) == [
            (f"dmp/v1/{rae}/{SESSION}/cmd/u-team1", b"cmd"),
            (f"dmp/v1/{rae}/rae/ack", b"ack"),
            (f"dmp/v1/{rae}/rae/info", b"own status"),
        ]


@async_test
async def test_the_bridge_commands_and_acknowledges_but_never_speaks_for_a_rae(mosquitto, rae):
    async with parties(mosquitto, rae, "svc-bridge") as (edge, bridge):
        await edge.client.subscribe([f"dmp/v1/{rae}/+/cmd/+", f"dmp/v1/{rae}/rae/ack"])
        assert await bridge.publish(f"dmp/v1/{rae}/{SESSION}/cmd/u-team1") == 0
        assert await bridge.publish(f"dmp/v1/{rae}/rae/ack") == 0
        for tail in (f"{SESSION}/info", "rae/info", f"{SESSION}/rsp/u-team1", f"{SESSION}/ack"):
            assert await bridge.publish(f"dmp/v1/{rae}/{tail}") == NOT_AUTHORIZED, tail


@async_test
async def test_the_access_service_alone_writes_the_control_topic(mosquitto, rae):
    async with parties(mosquitto, "svc-access", "svc-canary", "svc-bridge") as (access, canary, bridge):
        assert await access.publish("$CONTROL/dynamic-security/v1", b"{}") != NOT_AUTHORIZED
        assert await access.publish(f"dmp/v1/{rae}/{SESSION}/info") == NOT_AUTHORIZED
        for party in (canary, bridge):
            assert await party.publish("$CONTROL/dynamic-security/v1", b"{}") == NOT_AUTHORIZED


@async_test
async def test_services_read_their_own_topics_and_nobody_elses(mosquitto, rae):
    """What is sent last is what each may read: by then the others would have come."""
    async with parties(mosquitto, rae, "svc-bridge", "svc-access") as (edge, bridge, access):
        for party in (bridge, access):
            await party.client.subscribe(["dmp/v1/#", "$CONTROL/#"])
        assert await bridge.publish(f"dmp/v1/{rae}/{SESSION}/cmd/u-team1", b"cmd") in (0x00, 0x10)
        assert await bridge.publish(f"dmp/v1/{rae}/rae/ack", b"ack") in (0x00, 0x10)
        assert await edge.publish(f"dmp/v1/{rae}/{SESSION}/rsp/u-team1", b"rsp") == 0
        assert await edge.publish(f"dmp/v1/{rae}/rae/info", b"info") == 0
        assert await bridge.hears(f"dmp/v1/{rae}/rae/info", b"info")
        heard = {topic for topic, _ in bridge.received if f"/{rae}/" in topic}
        assert heard == {f"dmp/v1/{rae}/{SESSION}/rsp/u-team1", f"dmp/v1/{rae}/rae/info"}
        # Without the plugin nobody answers; the broker itself lets only the rule's reader have the topic.
        assert [topic for topic, _ in access.received if topic.startswith("dmp/")] == []


@async_test
async def test_the_canary_service_reads_the_brokers_figures_and_nothing_else(mosquitto, rae):
    async with parties(mosquitto, rae, "svc-canary") as (edge, canary):
        await canary.client.subscribe(["$SYS/broker/version", "#"], retain_handling=0)
        await edge.publish(f"dmp/v1/{rae}/{SESSION}/info")
        assert await canary.publish(f"dmp/v1/{rae}/{SESSION}/info") == NOT_AUTHORIZED
        assert await canary.hears("$SYS/broker/version")
        assert {topic for topic, _ in canary.received} == {"$SYS/broker/version"}


@async_test
async def test_a_certificate_of_a_stranger_is_refused(mosquitto, rae):
    with public_folder() as folder:
        foreign = CertificateAuthority(folder).client(rae)
        settings = mosquitto.settings(rae)
        settings = msgspec.structs.replace(settings, cert_file=str(foreign.cert), key_file=str(foreign.key))
        with pytest.raises((MqttRefusedError, MqttUnreachableError)):
            await MqttClient.connect(
                settings,
                client_id=rae,
                clean_start=True,
                session_expiry_s=0,
                will=None,
                on_message=lambda message: None,
                on_puback=lambda mid, code: None,
                receive_maximum=100,
            )


@async_test
async def test_the_bridges_name_without_its_certificate_evicts_nobody(mosquitto, rae):
    async with parties(mosquitto, "svc-bridge") as (bridge,):
        intruder = Party(rae)
        await intruder.connect(mosquitto, client_id="svc-bridge")
        try:
            # A round trip of both: whatever the broker wanted to close, it has closed by now.
            assert await intruder.publish(f"dmp/v1/{rae}/rae/info") in (0x00, 0x10)
            assert await bridge.publish(f"dmp/v1/{rae}/rae/ack") in (0x00, 0x10)
            assert not bridge.client.closed.done()
        finally:
            await intruder.client.disconnect()
        successor = Party("svc-bridge")
        await successor.connect(mosquitto)
        await asyncio.wait_for(asyncio.shield(bridge.client.closed), WAIT_S)  # the test can fail: its own name does
        await successor.client.disconnect()
