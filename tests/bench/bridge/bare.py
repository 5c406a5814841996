"""The reference: a subscriber that counts and does nothing else, as a process of its own. Prints one line of JSON.

``paho`` is the client library as anybody uses it: its own loop, PUBACKs by itself. ``runtime`` is dmpd's client on
uvloop with an acknowledgement at once: what the bridge would be without Kafka.
"""

import asyncio
import json
import ssl
import sys
import time
from typing import Any

import msgspec
import uvloop
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from dmpd.runtime.mqtt import Message, MqttClient
from dmpd.runtime.settings import MqttSettings

FILTER = "dmp/v1/+/+/info"
RECEIVE_MAXIMUM = 1_000
SESSION_EXPIRY_S = 86_400


class Count:
    """From the first to the last message."""

    def __init__(self, messages: int) -> None:
        self._left = messages
        self._messages = messages
        self._first_s = self._first_cpu_s = 0.0
        self.result: dict[str, float] = {}

    def one(self) -> bool:
        """Note one; True at the last."""
        if self._left == self._messages:
            self._first_s, self._first_cpu_s = time.monotonic(), time.process_time()
        self._left -= 1
        if self._left:
            return False
        seconds = time.monotonic() - self._first_s
        cpu_us = (time.process_time() - self._first_cpu_s) * 1e6
        self.result = {"per_s": self._messages / seconds, "cpu_us": cpu_us / self._messages}
        return True


def with_paho(settings: MqttSettings, client_id: str, count: Count) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
    client.tls_set(settings.ca_file, settings.cert_file, settings.key_file, tls_version=ssl.PROTOCOL_TLS_CLIENT)

    def on_message(*_: Any) -> None:
        if count.one():
            client.disconnect()

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe([(FILTER, SubscribeOptions(qos=1, retainHandling=1))])
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_EXPIRY_S
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=False, properties=properties)
    client.loop_forever()


async def with_runtime(settings: MqttSettings, client_id: str, count: Count) -> None:
    done = asyncio.Event()
    early: list[Message] = []
    clients: list[MqttClient] = []

    def on_message(message: Message) -> None:
        (clients[0].ack if clients else early.append)(message)
        if count.one():
            done.set()

    client = await MqttClient.connect(
        settings,
        client_id=client_id,
        clean_start=False,
        session_expiry_s=SESSION_EXPIRY_S,
        will=None,
        on_message=on_message,
        on_puback=lambda *_: None,
        receive_maximum=RECEIVE_MAXIMUM,
    )
    client.ack_all(early)
    clients.append(client)
    await client.subscribe([FILTER])
    await done.wait()
    await client.disconnect()


def main() -> None:
    kind, settings, client_id, messages = sys.argv[1:]
    count = Count(int(messages))
    decoded = msgspec.json.decode(settings, type=MqttSettings)
    if kind == "paho":
        with_paho(decoded, client_id, count)
    else:
        uvloop.run(with_runtime(decoded, client_id, count))
    print(json.dumps(count.result))


if __name__ == "__main__":
    main()
