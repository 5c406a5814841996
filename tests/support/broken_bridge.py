"""A bridge that does wrong what it is told to: between the broker and ``dmp.info``, in the place of the real one."""

import asyncio
import contextlib

import msgspec

from dmpd.model.topics import parse_topic, partition_of
from dmpd.runtime import kafka_admin
from dmpd.runtime.kafka import Producer
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.settings import MqttSettings


class BrokenBridge:
    """Carries every message of ``info``, but for those of four clients: seq 4 of ``drops`` is dropped, of ``alters``
    changed, of ``swaps`` sent behind seq 5, of ``delays`` sent later by ``delay_s``, with all that follows it."""

    def __init__(self, mqtt: MqttSettings, kafka, topic: str, *, drops, alters, swaps, delays, delay_s):
        self._mqtt = mqtt
        self._topic = topic
        self._faults = {drops: self._drop, alters: self._alter, swaps: self._swap, delays: self._delay}
        self._delay_s = delay_s
        self._producer = Producer(kafka, "broken-bridge")
        self._partitions = len(kafka_admin.list_end_offsets(kafka, topic))
        self._held: dict[str, list] = {}
        self._delaying = False
        self._client = None
        self._early: list = []

    @contextlib.asynccontextmanager
    async def running(self):
        self._client = await MqttClient.connect(
            self._mqtt,
            client_id="svc-bridge",
            clean_start=False,
            session_expiry_s=600,
            will=None,
            on_message=self._carry,
            on_puback=lambda *_: None,
            receive_maximum=1000,
        )
        for message in self._early:
            self._carry(message)
        await self._client.subscribe(["dmp/v1/+/+/info"])
        polling = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            polling.cancel()
            self._producer.flush(10)
            self._producer.close()
            await self._client.disconnect()

    async def _poll(self):
        while True:
            self._producer.poll(0)
            await asyncio.sleep(0.02)

    def _carry(self, message):
        if self._client is None:  # what the broker kept comes before anybody has the client
            self._early.append(message)
            return
        self._client.ack(message)
        rae = parse_topic(message.topic).rae
        seq = msgspec.json.decode(message.payload).get("seq")
        fault = self._faults.get(rae)
        if fault is None:
            self._send(message.topic, message.payload)
        else:
            fault(message.topic, message.payload, seq)

    def _send(self, topic, payload):
        self._producer.produce(
            self._topic,
            key=topic.encode(),
            value=payload,
            headers=(),
            partition=partition_of(parse_topic(topic).rae, self._partitions),
            on_delivery=lambda _: None,
        )

    def _drop(self, topic, payload, seq):
        if seq != 4:
            self._send(topic, payload)

    def _alter(self, topic, payload, seq):
        self._send(topic, payload.replace(b'"last":4', b'"last":44') if seq == 4 else payload)

    def _swap(self, topic, payload, seq):
        if seq == 4:
            self._held[topic] = [payload]
            return
        self._send(topic, payload)
        for held in self._held.pop(topic, ()):
            self._send(topic, held)

    def _delay(self, topic, payload, seq):
        if seq == 4 or self._delaying:
            self._delaying = True
            asyncio.get_running_loop().call_later(self._delay_s, self._send, topic, payload)
        else:
            self._send(topic, payload)
