"""One canary: a RAE with one device session, over one connection. All on the event loop of its crowd."""

import ssl
import time
import zlib
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from dmpd.canary.arrivals import Finding
from dmpd.canary.history import History
from dmpd.canary.plan import Plan, payload, rae_of, session_of, topic_of
from dmpd.model.codec import InvalidMessageError, decode, encode
from dmpd.model.messages import Durable, Request, Response
from dmpd.model.topics import (
    RAE_SESSION,
    InvalidTopicError,
    Topic,
    ack_topic,
    cmd_filter,
    cmd_topic,
    info_topic,
    parse_topic,
)
from dmpd.model.topics import rsp_topic as response_topic
from dmpd.runtime.mqtt_dial import Address
from dmpd.runtime.mqtt_frames import Message
from dmpd.runtime.mqtt_mass import MassClient, Opened

NOT_AUTHORIZED: Final = 0x87
_WINDOW: Final = 20
_PROBE: Final = -1
PROBE_WRITES: Final = 4
"""Publishes of each client that probes."""
_RESPONSE: Final = -2
_RESPONSE_SEQ: Final = 1_000_000
"""Outbox rows of responses: far above those of slots, so that ``durable`` tells them apart."""


class Share(Struct):
    """What all clients of one process find together."""

    plan: Plan
    history: History
    began_ns: int
    """Monotonic, when ``plan.started_ms`` was."""
    heard: Finding
    """What was heard of another's: a hole in the broker's rules."""
    taken: Finding
    """What the broker took though it is another's to say: a hole too."""
    disconnects: Finding
    leftovers: Finding
    answered: int = 0
    refusals: int = 0
    """Probes that the broker refused, as it should."""

    def elapsed_ms(self) -> int:
        return (time.monotonic_ns() - self.began_ns) // 1_000_000


class CanaryClient:
    """``arrive``, then ``send`` slots; what is over the window waits in its order."""

    def __init__(self, number: int, share: Share, context: ssl.SSLContext) -> None:
        self.number = number
        self.rae = rae_of(number)
        self._share = share
        self._context = context
        self._waiting: deque[tuple[int, int]] = deque()
        self._answers: set[str] = set()
        self._responses = 0
        self._own = f"dmp/v1/{self.rae}/"
        self.mqtt = MassClient(self.rae, on_message=self._heard, on_puback=self._acked, on_closed=self._broken)

    @property
    def alive(self) -> bool:
        return self.mqtt.closed is None

    @property
    def idle(self) -> bool:
        """Nothing is on its way: all acknowledged, or given up because the connection is gone."""
        return not self.alive or not (self._waiting or self.mqtt.in_flight)

    @property
    def unsent(self) -> int:
        return len(self._waiting)

    async def arrive(self, address: Address, *, timeout_s: float) -> Opened:
        """Connect, as one who expects nothing of an older session; subscribe to requests and ``durable``.

        Raises:
            MqttUnreachableError, ConnectionError: It does not get in.
        """
        opened = await self.mqtt.open(address, self._context, clean_start=False, timeout_s=timeout_s)
        if opened.session_present:
            self._share.leftovers.add(f"{self.rae}: an MQTT session from before the run")
        if opened.code < 0x80:
            await self.mqtt.subscribe((cmd_filter(self.rae), ack_topic(self.rae)))
        return opened

    async def look(self, address: Address, *, timeout_s: float) -> None:
        """Come back after the run and look for what should not be there: an MQTT session, a retained message.

        Raises:
            MqttUnreachableError, ConnectionError: It does not get in.
        """
        opened = await self.mqtt.open(address, self._context, clean_start=False, timeout_s=timeout_s)
        if opened.code >= 0x80:
            raise ConnectionError(f"CONNACK 0x{opened.code:02x}")
        if opened.session_present:
            self._share.leftovers.add(f"{self.rae}: an MQTT session after the run")
        self.mqtt.on_message = self._heard_leftover
        await self.mqtt.subscribe((info_topic(self.rae, RAE_SESSION),), retained=True)
        await self.mqtt.ping()
        self.mqtt.leave()

    def send(self, slot: int) -> None:
        """Publish the message of a slot, now or when the window allows it; the time counts from now."""
        if not self.alive:
            return
        self._waiting.append((slot, time.monotonic_ns()))
        self._send_waiting()

    async def probe_reads(self, neighbour: int, *, wide: bool) -> None:
        """Subscribe to what is another's; anything that is heard from there is a hole."""
        name = rae_of(neighbour)
        filters = [f"dmp/v1/{name}/+/info", f"dmp/v1/{name}/+/cmd/+"]
        await self.mqtt.subscribe([*filters, "#"] if wide else filters)

    def probe_writes(self, neighbour: int) -> None:
        """Publish what is another's to say; anything but a refusal is a hole."""
        if self.alive:
            name, session = rae_of(neighbour), session_of(self._share.plan.run, neighbour)
            for target in (
                info_topic(name, session),
                cmd_topic(name, session, self.rae),
                response_topic(name, session, self.rae),
                ack_topic(self.rae),
            ):
                self.mqtt.publish(target, b"{}", _PROBE)

    def _send_waiting(self) -> None:
        share = self._share
        while self._waiting and len(self.mqtt.in_flight) < _WINDOW:
            slot, at_ns = self._waiting.popleft()
            content = payload(share.plan, self.number, slot, (at_ns - share.began_ns) // 1_000_000)
            share.history.note_sent(self.number, slot, zlib.crc32(content), at_ns)
            self.mqtt.publish(topic_of(share.plan, self.number, slot), content, slot)

    def _acked(self, key: int, code: int) -> None:
        share = self._share
        if key >= 0:
            share.history.note_acked(self.number, key, code, time.monotonic_ns())
        elif key == _PROBE:
            if code == NOT_AUTHORIZED:
                share.refusals += 1
            else:
                share.taken.add(f"{self.rae}: a publish to another's topic was answered 0x{code:02x}")
        if self._waiting:
            self._send_waiting()

    def _heard(self, message: Message) -> None:
        if not message.topic.startswith(self._own):
            self._share.heard.add(f"{self.rae}: heard {message.topic}")
            return
        try:
            topic = parse_topic(message.topic)
            found = decode(message.payload, topic)
        except (InvalidTopicError, InvalidMessageError) as error:
            self._share.heard.add(f"{self.rae}: heard {message.topic}: {error}")
            return
        if isinstance(found, Durable):
            if found.epoch == self._share.plan.epoch:
                now_ns = time.monotonic_ns()
                for first, last in found.stored:
                    self._share.history.note_durable(self.number, first, last, now_ns)
        elif isinstance(found, Request):
            self._answer(topic, found)

    def _answer(self, topic: Topic, request: Request) -> None:
        """``accepted``, then ``done``; to a repeated request ``done`` alone. Nothing is done for it."""
        if not self.alive or topic.requester is None:
            return
        share = self._share
        known = request.id in self._answers
        self._answers.add(request.id)
        at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=share.plan.started_ms + share.elapsed_ms())
        target = response_topic(self.rae, request.session, topic.requester)
        for outcome in ("done",) if known else ("accepted", "done"):
            self._responses += 1
            response = Response(
                v=1,
                rae=self.rae,
                session=request.session,
                at=at,
                epoch=share.plan.epoch,
                id=request.id,
                outcome=outcome,  # type: ignore[arg-type]
                seq=_RESPONSE_SEQ + self._responses,
            )
            self.mqtt.publish(target, encode(response), _RESPONSE)
        share.answered += not known

    def _heard_leftover(self, message: Message) -> None:
        self._share.leftovers.add(f"{self.rae}: a retained message on {message.topic}")

    def _broken(self, why: str) -> None:
        self._share.history.broken.add(self.number)
        self._share.disconnects.add(f"{self.rae}: {why}")
