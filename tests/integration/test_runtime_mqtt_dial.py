"""Who is dropped from a broker's queue of new connections begins anew; who waits in it keeps its place."""

import asyncio
import ctypes
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from dmpd.lab.server import free_ports
from dmpd.runtime import mqtt_dial
from dmpd.runtime.mqtt_dial import resolve
from dmpd.runtime.mqtt_mass import MassClient, client_context
from dmpd.runtime.mqtt_stream import MqttUnreachableError
from tests.support.aio import async_test, until
from tests.support.proxy import TcpProxy
from tests.support.services import public_folder, start_mosquitto

pytestmark = pytest.mark.services

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


def drop_what_is_sent(listener):
    """Connections that come now are open at their client's end, and nothing that is longer than 100 bytes arrives."""
    program = b"".join(
        struct.pack("=HBBI", *one)
        for one in ((0x80, 0, 0, 0), (0x25, 0, 1, 100), (0x06, 0, 0, 0), (0x06, 0, 0, 1 << 20))
    )
    held = ctypes.create_string_buffer(program)
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(held)))


@pytest.fixture
def soon(monkeypatch):
    """After 0.6 s of silence instead of 6."""
    monkeypatch.setattr(mqtt_dial, "_RESENDS_MAX", 2)
    monkeypatch.setattr(mqtt_dial, "_LOOK_S", 0.1)
    monkeypatch.setattr(mqtt_dial, "_PAUSE_S", 0.1)


def client_of(service, name):
    settings = service.settings(name)
    context = client_context(Path(settings.ca_file).read_text(), settings.cert_file, settings.key_file)
    return MassClient(name, on_message=print, on_puback=print, on_closed=print), context


@async_test
async def test_who_is_dropped_begins_anew_and_says_so(mosquitto, soon):
    (port,) = free_ports(1)
    async with TcpProxy(mosquitto.port, port=port) as proxy:
        (listener,) = proxy._server.sockets
        drop_what_is_sent(listener)
        client, context = client_of(mosquitto, "canary-7201")
        address = await resolve("127.0.0.1", port)
        opening = asyncio.create_task(client.open(address, context, clean_start=True, timeout_s=60.0))
        await until(lambda: proxy._tasks, "the connection that is dropped")
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        opened = await opening
        assert opened.code == 0
        assert opened.anew == 1
        assert opened.tcp_s > 0.5, "the time that was lost counts"
        client.leave()
        await asyncio.wait_for(client._stream.lost, 20)


@async_test
async def test_who_is_dropped_all_the_time_gives_up_in_time_and_says_how_often_it_tried(mosquitto, soon):
    (port,) = free_ports(1)
    async with TcpProxy(mosquitto.port, port=port) as proxy:
        drop_what_is_sent(proxy._server.sockets[0])
        client, context = client_of(mosquitto, "canary-7202")
        began_s = time.monotonic()
        with pytest.raises(MqttUnreachableError, match=r"^(TLS|TCP): nothing within 6 s, begun anew [2-9] times"):
            await client.open(await resolve("127.0.0.1", port), context, clean_start=True, timeout_s=6.0)
        assert time.monotonic() - began_s >= 6


@async_test
async def test_who_waits_for_a_broker_that_does_not_answer_keeps_its_place(mosquitto, soon):
    with public_folder() as folder, start_mosquitto(folder) as service:
        client, context = client_of(service, "canary-7203")
        service.process.freeze()
        with pytest.raises(MqttUnreachableError, match=r"^TLS: nothing within 3 s$"):
            await client.open(await resolve("127.0.0.1", service.port), context, clean_start=True, timeout_s=3.0)
        os.kill(service.process.pid, signal.SIGCONT)
