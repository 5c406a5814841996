"""Opening a connection that does not get there in time."""

import asyncio
import socket
import ssl
from typing import Any

import pytest

from dmpd.runtime import mqtt_stream
from dmpd.runtime.mqtt_stream import open_stream
from dmpd.runtime.settings import MqttSettings
from tests.support.aio import async_test


@async_test
async def test_regression_a_socket_given_up_after_its_handshake_is_closed_by_its_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by chaos: the number of a socket closed under its transport went to the next one, which was refused."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    real = loop.create_connection
    streams: list[mqtt_stream.Stream] = []

    async def too_late(protocol: Any, *, sock: socket.socket, **_: Any) -> Any:
        transport, stream = await real(protocol, sock=sock)
        streams.append(stream)
        transport.resume_reading()  # as that of TLS, which reads in any case
        raise asyncio.CancelledError

    async def opened(settings: MqttSettings) -> socket.socket:
        return ours

    monkeypatch.setattr(loop, "create_connection", too_late)
    monkeypatch.setattr(mqtt_stream, "_open_tcp", opened)
    monkeypatch.setattr(mqtt_stream, "tls_context", lambda settings: ssl.create_default_context())
    with pytest.raises(asyncio.CancelledError):
        await open_stream(MqttSettings(host="localhost", ca_file="ca", cert_file="crt", key_file="key"))
    assert ours.fileno() != -1, "its number is free while a transport is registered for it"
    assert theirs.recv(1) == b"", "the broker is not told"
    await asyncio.wait_for(streams[0].lost, 30)
    assert ours.fileno() == -1
    theirs.close()
