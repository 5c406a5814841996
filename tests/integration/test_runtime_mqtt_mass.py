"""The client of thousands, at a real broker: every step timed, every refusal a sentence, nothing blocks the loop."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from dmpd.runtime.mqtt_dial import resolve
from dmpd.runtime.mqtt_frames import Message
from dmpd.runtime.mqtt_mass import MassClient, client_context
from dmpd.runtime.mqtt_stream import MqttUnreachableError
from tests.support.aio import async_test, until
from tests.support.services import public_folder, start_mosquitto

pytestmark = pytest.mark.services


class Heard:
    def __init__(self, service, name):
        settings = service.settings(name)
        ca = Path(settings.ca_file).read_text()
        self.context = client_context(ca, settings.cert_file, settings.key_file)
        self.messages: list[Message] = []
        self.pubacks: list[tuple[int, int]] = []
        self.ended: list[str] = []
        self.client = MassClient(
            name,
            on_message=self.messages.append,
            on_puback=lambda key, code: self.pubacks.append((key, code)),
            on_closed=self.ended.append,
        )

    async def open(self, service, **more):
        address = await resolve("127.0.0.1", service.port)
        return await self.client.open(address, self.context, **{"clean_start": True, "timeout_s": 20.0} | more)

    async def leave(self):
        """And wait until nothing of the connection is left."""
        self.client.leave()
        await asyncio.wait_for(self.client._stream.lost, 20)


@async_test
async def test_it_publishes_hears_and_learns_what_is_refused(mosquitto):
    one, two = Heard(mosquitto, "canary-7001"), Heard(mosquitto, "svc-bridge")
    opened = await one.open(mosquitto)
    await two.open(mosquitto)
    assert opened.code == 0
    assert not opened.session_present
    assert min(opened.tcp_s, opened.tls_s, opened.connack_s) >= 0
    assert await two.client.subscribe(["dmp/v1/+/+/info", "dmp/v1/+/+/rsp/+"]) == [1, 1]
    payload = os.urandom(70_000)  # three bytes of length
    one.client.publish("dmp/v1/canary-7001/rae/info", payload, 11)
    one.client.publish("dmp/v1/canary-7002/rae/info", b"x", 12)
    await until(lambda: len(one.pubacks) == 2 and two.messages, "two PUBACKs and a message")
    assert one.pubacks == [(11, 0), (12, 0x87)]
    assert [(message.topic, message.payload) for message in two.messages] == [("dmp/v1/canary-7001/rae/info", payload)]
    await one.client.ping()
    await one.leave()
    await two.leave()
    assert one.ended == two.ended == []
    with pytest.raises(ConnectionError):
        one.client.publish("dmp/v1/canary-7001/rae/info", b"x", 13)


@async_test
async def test_a_session_that_was_left_is_seen_and_gone_after_that(mosquitto):
    for expiry_s, present in ((60, False), (0, True), (0, False)):
        client = Heard(mosquitto, "canary-7003")
        opened = await client.open(mosquitto, clean_start=False, session_expiry_s=expiry_s)
        assert opened.session_present is present
        await client.client.ping()
        await client.leave()


@async_test
async def test_a_broker_that_dies_is_told_once_and_an_open_question_fails(mosquitto):
    with public_folder() as folder, start_mosquitto(folder) as service:
        one, two = Heard(service, "canary-7004"), Heard(service, "canary-7005")
        await one.open(service)
        await two.open(service)
        service.process.freeze()
        asked = asyncio.create_task(two.client.ping())
        await asyncio.sleep(0)
        service.process.kill()
        await until(lambda: one.ended, "its end")
        with pytest.raises(ConnectionError):
            await asked
        assert len(one.ended) == 1
        with pytest.raises(MqttUnreachableError, match=r"^TCP: "):
            await Heard(service, "canary-7006").open(service)


@async_test
async def test_handshakes_with_a_frozen_broker_block_nobody_and_end_in_time(mosquitto):
    with public_folder() as folder, start_mosquitto(folder) as service:
        clients = [Heard(service, f"canary-{number}") for number in range(7100, 7150)]
        service.process.freeze()
        gaps: list[float] = []

        async def tick():
            while True:
                began_s = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - began_s)

        ticking = asyncio.create_task(tick())
        ends = await asyncio.gather(*(one.open(service, timeout_s=1.5) for one in clients), return_exceptions=True)
        ticking.cancel()
        os.kill(service.process.pid, signal.SIGCONT)
        assert {type(end) for end in ends} == {MqttUnreachableError}
        assert {str(end) for end in ends} == {"TLS: nothing within 1.5 s"}
        assert len(gaps) > 10
        assert max(gaps) < 1.0, "the loop went on while fifty handshakes waited"


@async_test
async def test_a_certificate_that_the_broker_does_not_know_is_refused_with_its_words(mosquitto):
    with public_folder() as folder, start_mosquitto(folder) as other:
        stranger = Heard(other, "canary-7007")
        stranger.context.load_verify_locations(cafile=mosquitto.settings("canary-7007").ca_file)
        with pytest.raises(MqttUnreachableError, match=r"^(TLS|CONNACK): "):
            await stranger.open(mosquitto)
