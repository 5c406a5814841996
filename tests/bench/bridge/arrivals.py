"""When each message came to one observer, as a process of its own: nothing else shall wait for the same interpreter.

``broker`` is a bare subscriber, ``kafka`` a consumer of the topic. Prints ``ready``, watches until its stdin ends, then
prints what it saw as JSON. Times are of the monotonic clock, which all processes of a machine share.
"""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Self

import msgspec
import uvloop
from confluent_kafka import Consumer, TopicPartition

from dmpd.runtime.mqtt import Message, MqttClient
from dmpd.runtime.settings import MqttSettings
from tests.bench.bridge.servers import BARE, PARTITIONS, Platform

_ROOT = Path(__file__).resolve().parents[3]
_TIMEOUT_S = 60.0


class Seen(msgspec.Struct):
    """Of each message: its number, when it came, and (``kafka``) in which millisecond the bridge produced it."""

    number: list[int] = []
    came_s: list[float] = []
    produced_s: list[float] = []


class Observer:
    """One of these processes, from ``with`` to ``with``; ``seen`` is whole after it."""

    def __init__(self, kind: str, argument: str) -> None:
        self._command = [sys.executable, "-m", "tests.bench.bridge.arrivals", kind, argument]
        self.seen = Seen()

    @classmethod
    def of_broker(cls, platform: Platform) -> Self:
        return cls("broker", msgspec.json.encode(platform.settings(BARE[0])).decode())

    @classmethod
    def of_kafka(cls, platform: Platform, topic: str) -> Self:
        return cls("kafka", f"{platform.kafka.bootstrap_servers} {topic}")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{self._command[2:4]} did not get ready")
        return self

    def __exit__(self, *_: object) -> None:
        out, _error = self._process.communicate(timeout=_TIMEOUT_S)
        if self._process.returncode != 0:
            raise RuntimeError(f"an observer ended with {self._process.returncode}")
        try:
            self.seen = msgspec.json.decode(out, type=Seen)
        except msgspec.DecodeError as error:
            raise RuntimeError(f"{self._command[3]} observer: {len(out)} bytes, {out[-40:]!r}: {error}") from error


def _number(payload: bytes) -> int:
    """Of the message, counted over all RAEs; it is the row's ``seq``."""
    return int(json.loads(payload)["seq"])


async def _watch_broker(settings: MqttSettings, seen: Seen, ended: threading.Event) -> None:
    clients: list[MqttClient] = []

    def on_message(message: Message) -> None:
        seen.came_s.append(time.monotonic())
        seen.number.append(_number(message.payload))
        clients[0].ack(message)

    client = await MqttClient.connect(
        settings,
        client_id=BARE[0],
        clean_start=True,
        session_expiry_s=0,
        will=None,
        on_message=on_message,
        on_puback=lambda *_: None,
        receive_maximum=1000,
    )
    clients.append(client)
    await client.subscribe(["dmp/v1/+/+/info"])
    print("ready", flush=True)
    await asyncio.to_thread(ended.wait)
    await client.disconnect()


def _watch_kafka(bootstrap_servers: str, topic: str, seen: Seen, ended: threading.Event) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "fetch.wait.max.ms": 500,
            "fetch.min.bytes": 1,
            "log_level": 2,
        }
    )
    ahead_s = time.time() - time.monotonic()
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    print("ready", flush=True)
    while not ended.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            seen.came_s.append(time.monotonic())
            seen.number.append(_number(message.value()))
            seen.produced_s.append(message.timestamp()[1] / 1000 - ahead_s)
    consumer.close()


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main() -> None:
    kind, argument = sys.argv[1:]
    seen, ended = Seen(), threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    gc.disable()  # it keeps every number: each collection would look at more of them
    if kind == "broker":
        uvloop.run(_watch_broker(msgspec.json.decode(argument, type=MqttSettings), seen, ended))
    else:
        _watch_kafka(*argument.split(" "), seen, ended)
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
