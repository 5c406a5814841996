"""A broker and a bridge for one RAE's engine, in memory and with faults at hand."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from msgspec import json

from dmpd.local_registry.store import StoredDevice
from dmpd.model.apply import DeviceRow, apply_message
from dmpd.model.codec import decode, encode
from dmpd.model.messages import Change, Checkpoint, Closed, Durable, Message, Response, Roster, Status
from dmpd.model.record import DeviceRecord
from dmpd.model.topics import ack_topic, cmd_topic, parse_topic
from dmpd.runtime.mqtt import Message as MqttMessage
from dmpd.runtime.mqtt import MqttUnreachableError


class EdgeCloud:
    """Everything behind the RAE's uplink. Switches are plain attributes; all on one event loop."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.reachable = True
        self.bridge_there = True
        self.answering = True
        self.reports = True
        """Whether ``durable`` is sent for what is stored."""
        self.loses = 0.0
        """Share of PUBLISHes that the broker acknowledges and forgets."""
        self.durable_loss = 0.0
        self.refuse_code = 0
        self.receive_maximum = 20
        self.clients: list[EdgeClient] = []
        self.kafka: list[Message] = []
        self.rows: dict[str, DeviceRow | None] = {}
        """The database, by the model's own rules."""
        self.wills: list[Message] = []
        self.connects = 0
        self._unreported: list[tuple[int, int]] = []
        self._reporting = False

    async def connect(self, settings: Any, **options: Any) -> "EdgeClient":
        """Stands for ``MqttClient.connect``."""
        await asyncio.sleep(0)
        self.connects += 1
        if not self.reachable:
            raise MqttUnreachableError("no broker in this test")
        client = EdgeClient(self, **options)
        self.clients.append(client)
        return client

    def take(self, client: "EdgeClient", topic: str, payload: bytes, mid: int) -> None:
        """One PUBLISH arrives."""
        if not self.answering or client.closed.done():
            return
        code = self.refuse_code or (0 if self.bridge_there else 0x10)
        if code == 0 and self.random.random() >= self.loses:
            self.store(client, decode(payload, parse_topic(topic)))
        client.on_puback(mid, code)

    def store(self, client: "EdgeClient", message: Message) -> None:
        self.kafka.append(message)
        if isinstance(message, Change | Checkpoint | Closed):
            self.rows[message.session] = apply_message(self.rows.get(message.session), message)[0]
        seq = getattr(message, "seq", None)
        if seq is None or not self.reports or self.random.random() < self.durable_loss:
            return
        self._unreported.append((message.epoch, seq))  # type: ignore[union-attr]
        if not self._reporting:
            self._reporting = True
            asyncio.get_running_loop().call_later(0.005, self.report, client)

    def report(self, client: "EdgeClient") -> None:
        self._reporting = False
        unreported, self._unreported = self._unreported, []
        for epoch in {epoch for epoch, _ in unreported}:
            stored = tuple((seq, seq) for own, seq in sorted(set(unreported)) if own == epoch)
            self.say(
                client, Durable(v=1, rae=client.rae, session="rae", at=datetime.now(UTC), epoch=epoch, stored=stored)
            )

    def say(self, client: "EdgeClient", durable: Durable) -> None:
        if not client.closed.done() and client.subscribed:
            client.on_message(
                MqttMessage(ack_topic(client.rae), encode(durable), 0, False, False, 0, None, (), None, None)
            )

    def ask(
        self,
        payload: bytes,
        *,
        session: str = "rae",
        requester: str = "op-eve",
        expiry_s: int | None = None,
        retain: bool = False,
        mid: int = 1,
    ) -> None:
        """Deliver one message on a ``cmd`` topic to the RAE that is connected."""
        client = self.clients[-1]
        assert any("/cmd/" in pattern for pattern in client.subscribed)
        topic = cmd_topic(client.rae, session, requester)
        client.on_message(MqttMessage(topic, payload, 1, retain, False, mid, expiry_s, (), None, None))

    @property
    def responses(self) -> list[Response]:
        return [message for message in self.kafka if isinstance(message, Response)]

    def cut(self) -> None:
        """The broker dies: connections end, wills are published."""
        for client in self.clients:
            client.end("cut", 0x8B)
        self.clients.clear()

    @property
    def statuses(self) -> list[Status]:
        return [message for message in self.kafka if isinstance(message, Status)]

    @property
    def rosters(self) -> list[Roster]:
        return [message for message in self.kafka if isinstance(message, Roster)]

    def differences(self, devices: Sequence[StoredDevice]) -> list[str]:
        """What of the RAE's store the database does not say, or says wrongly."""
        found = []
        for device in devices:
            row = self.rows.get(device.session)
            if row is None:
                found.append(f"{device.session}: rev {device.rev} is not there")
            elif (row.rev, row.closed) != (device.rev, device.closed) or row.stale:
                found.append(f"{device.session}: {device.rev} {device.closed}, row {row.rev} {row.closed} {row.stale}")
            elif row.closed is None and plain(row.record) != plain(device.record):
                found.append(f"{device.session}: {plain(device.record)}, row {plain(row.record)}")
        return found


def plain(record: DeviceRecord) -> object:
    return json.decode(json.encode(record))


class EdgeClient:
    """One connection, with the interface of ``runtime.mqtt.MqttClient``."""

    def __init__(
        self,
        cloud: EdgeCloud,
        *,
        client_id: str,
        will: Any,
        on_message: Callable[[MqttMessage], None],
        on_puback: Callable[[int, int], None],
        **options: Any,
    ) -> None:
        self.cloud = cloud
        self.rae = client_id
        self.will = will
        self.on_message = on_message
        self.on_puback = on_puback
        self.options = options
        self.server_receive_maximum = cloud.receive_maximum
        self.session_present = False
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.close_reason_code = 0
        self.subscribed: list[str] = []
        self.acked: list[int] = []
        self.in_flight = 0
        self.in_flight_max = 0
        self._mid = 0

    async def subscribe(
        self, filters: Sequence[str], *, retain_handling: int = 1, retain_as_published: bool = False
    ) -> list[int]:
        await asyncio.sleep(0)
        self.subscribed.extend(filters)
        return [1] * len(filters)

    def ack(self, message: MqttMessage) -> None:
        assert not self.closed.done()
        self.acked.append(message.mid)

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, expiry_s: int | None = None
    ) -> int:
        if self.closed.done():
            raise MqttUnreachableError("closed")
        self._mid += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        asyncio.get_running_loop().call_soon(self._arrive, topic, payload, self._mid)
        return self._mid

    def _arrive(self, topic: str, payload: bytes, mid: int) -> None:
        self.in_flight -= 1
        self.cloud.take(self, topic, payload, mid)

    async def disconnect(self, *, reason_code: int = 0) -> None:
        await asyncio.sleep(0)
        self.will = None
        self.end("disconnected", reason_code)

    def abort(self) -> None:
        self.end("aborted", 0)

    def end(self, why: str, code: int) -> None:
        if not self.closed.done():
            self.close_reason_code = code
            self.closed.set_result(why)
            if self.will is not None:
                self.cloud.wills.append(decode(self.will.payload, parse_topic(self.will.topic)))
