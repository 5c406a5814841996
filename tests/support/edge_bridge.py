"""A bridge without Kafka, on a real broker: takes every ``info``, answers ``durable``, remembers what it took."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

from dmpd.model.codec import decode, encode
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Durable, Message, Status
from dmpd.model.topics import ack_topic, parse_topic
from dmpd.runtime.mqtt import Message as MqttMessage
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.settings import MqttSettings


class EdgeBridge:
    """Connect, use, ``close``.

    ``reports`` False = it stores and says nothing; ``holding`` = not until ``release``. ``stores`` False = it
    acknowledges outbox rows and forgets them, as a bridge that dies before Kafka has them.
    """

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.retained: list[Status] = []
        self.refused: list[str] = []
        self.reports = True
        self.stores = True
        self.holding = False
        self.kept: Counter[str] = Counter()
        """By RAE, what came at QoS 1: what the broker keeps for a bridge that is away."""
        self._client: MqttClient | None = None
        self._early: list[MqttMessage] = []
        """What a resumed session delivered before ``connect`` returned."""
        self._unreported: dict[tuple[str, int], list[int]] = {}

    async def open(self, settings: MqttSettings) -> None:
        self._client = await MqttClient.connect(
            settings,
            client_id="svc-bridge",
            clean_start=False,
            session_expiry_s=3600,
            will=None,
            on_message=self._on_message,
            on_puback=lambda mid, code: None,
            receive_maximum=1000,
        )
        for message in self._early:
            self._on_message(message)
        await self._client.subscribe(["dmp/v1/+/+/info"], retain_handling=0)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.disconnect()

    def _on_message(self, message: MqttMessage) -> None:
        if self._client is None:
            self._early.append(message)
            return
        try:
            decoded = decode(message.payload, parse_topic(message.topic))
        except InvalidMessageError as error:  # of another test on the same broker, or a retained message cleared
            self.refused.append(str(error))
            self._client.ack(message)
            return
        if message.retain:
            assert isinstance(decoded, Status)
            self.retained.append(decoded)
        seq = getattr(decoded, "seq", None)
        if not message.retain and (self.stores or seq is None or isinstance(decoded, Status)):
            self.taken.append(decoded)
            self.kept[decoded.rae] += message.qos
        self._client.ack(message)
        if seq is not None and self.reports and self.stores:
            key = (decoded.rae, decoded.epoch)  # type: ignore[union-attr]
            if not self._unreported and not self.holding:
                asyncio.get_running_loop().call_later(0.02, self._report)
            self._unreported.setdefault(key, []).append(seq)

    def release(self) -> None:
        self.holding = False
        self._report()

    def _report(self) -> None:
        assert self._client is not None
        for (rae, epoch), seqs in self._unreported.items():
            stored = tuple((seq, seq) for seq in sorted(set(seqs)))
            durable = Durable(v=1, rae=rae, session="rae", at=datetime.now(UTC), epoch=epoch, stored=stored)
            if not self._client.closed.done():
                self._client.publish(ack_topic(rae), encode(durable), qos=0)
        self._unreported.clear()
