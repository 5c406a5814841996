"""One RAE's connection to the broker: the outbox's rows, statuses, rosters and checkpoints out, ``durable`` in.

What goes when is decided by ``outbox.Window``; here are the connection's life, the MQTT flights and the backoff. The
broker's session is never relied on (expiry 0): each connection begins with status and roster, then the rows.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from dmpd.local_registry import metrics
from dmpd.local_registry.journal import Journal
from dmpd.local_registry.outbox import Row
from dmpd.model.codec import InvalidMessageError, decode, encode
from dmpd.model.messages import Durable, RaeState, Roster, Status
from dmpd.model.topics import (
    RAE_SESSION,
    InvalidTopicError,
    Topic,
    ack_topic,
    cmd_filter,
    info_topic,
    parse_topic,
)
from dmpd.runtime.mqtt import Message, MqttRefusedError, MqttUnreachableError, Will
from dmpd.runtime.settings import MqttSettings

IN_FLIGHT_MAX: Final = 20
UNANSWERED_MAX_S: Final = 60.0
STABLE_S: Final = 60.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
TAKEN_OVER: Final = 0x8E
TAKEN_OVER_FIRST_S: Final = 60.0
TAKEN_OVER_MAX_S: Final = 900.0
FAREWELL_S: Final = 1.5
REPLIES_MAX: Final = 1000
DRAIN_AGAIN_FIRST_S: Final = 2.0
"""From the drain's begin, or the last time, until what is not durable goes again; doubles. The bridge takes 0.5 s."""

_log = logging.getLogger(__name__)


class Client(Protocol):
    """What this module uses of ``runtime.mqtt.MqttClient`` and its in-memory twin."""

    server_receive_maximum: int
    closed: "asyncio.Future[str]"
    close_reason_code: int

    async def subscribe(
        self, filters: Sequence[str], *, retain_handling: int = 1, retain_as_published: bool = False
    ) -> list[int]: ...
    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int: ...
    def ack(self, message: Message) -> None: ...
    async def disconnect(self, *, reason_code: int = 0) -> None: ...
    def abort(self) -> None: ...


Connect = Callable[..., Awaitable[Client]]
"""``MqttClient.connect``, or that of the in-memory broker."""


class Voice(Protocol):
    """What the RAE says of itself when asked: rendered at the moment of sending, never stored."""

    def status(self, state: RaeState, run: int) -> Status: ...
    def rosters(self) -> list[Roster]: ...
    def checkpoint(self, session: str, cause: str) -> bytes | None: ...


class Desk(Protocol):
    """Where requests go. ``ack`` acknowledges the message to the broker."""

    def receive(self, message: Message, topic: Topic, ack: Callable[[], None]) -> None: ...


class _Flight(NamedTuple):
    """A message that goes now, or that the broker has not answered yet."""

    kind: Literal["row", "status", "roster", "checkpoint", "reply"]
    sent_s: float
    qos: int = 1
    seq: int = 0
    """Of a row."""
    mark: int = 0
    """Of a status."""
    place: int = 0
    """Where the window counts it."""
    session: str = ""
    roster: Roster | None = None


class Uplink:
    """The connection of one RAE, kept for as long as ``run`` runs. Never raises for the network's sake."""

    def __init__(
        self,
        rae: str,
        settings: MqttSettings,
        *,
        journal: Journal,
        voice: Voice,
        connect: Connect,
        random: Callable[[], float],
        slots: asyncio.Semaphore,
    ) -> None:
        self._rae = rae
        self._settings = settings
        self._journal = journal
        self._voice = voice
        self._connect = connect
        self._random = random
        self._slots = slots
        self._client: Client | None = None
        self._receiving: Client | None = None
        """Whom a message came from: it may come before the connection is of use for anything else."""
        self._run = 0
        self._epoch = 0
        self._state: RaeState = "ready"
        self._in_flight: dict[int, _Flight] = {}
        self._limit = IN_FLIGHT_MAX
        self._status_due = False
        self._rosters: deque[Roster] = deque()
        self._checkpoints: dict[str, str] = {}
        """Why each is sent, by session."""
        self._replies: deque[tuple[str, bytes]] = deque()
        self.desk: Desk | None = None
        """Gets the requests; None = they are left unanswered."""
        self._stopping = asyncio.Event()
        self._drained = asyncio.Event()
        self._answered = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        self._failures = 0
        self._takeovers = 0
        self.last_answer_s: float | None = None
        self.problem: str | None = "not connected yet"
        """Why there is no connection, for status; None while there is one."""

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def run(self) -> None:
        """Connect, serve, reconnect with full jitter, until ``stop``."""
        while not self._stopping.is_set():
            if not self._journal.ready:
                await self._pause(0.2)
                continue
            began_s = time.monotonic()
            reason_code = await self._one_connection()
            if time.monotonic() - began_s > STABLE_S:
                self._failures = self._takeovers = 0
            if not self._stopping.is_set():
                await self._pause(self._delay_s(reason_code))

    def _delay_s(self, reason_code: int | None) -> float:
        if reason_code == TAKEN_OVER:  # somebody else has our name: do not fight over it
            # (Mosquitto 2.0.11 closes without this code: there the usual backoff, up to 60 s, bounds the fight.)
            delay_s = min(TAKEN_OVER_MAX_S, TAKEN_OVER_FIRST_S * 2.0**self._takeovers) * (1 + self._random())
            self._takeovers = min(self._takeovers + 1, 10)
            return min(TAKEN_OVER_MAX_S, delay_s)
        delay_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0**self._failures) * self._random()
        self._failures = min(self._failures + 1, 10)
        return delay_s

    async def _one_connection(self) -> int | None:
        """From connect to its end; returns the reason code of the end, if there was one."""
        self._run, self._epoch = await self._journal.next_run(), self._journal.epoch
        will = Will(topic=info_topic(self._rae, RAE_SESSION), payload=encode(self._voice.status("lost", self._run)))
        try:
            async with self._slots:
                client = await self._connect(
                    self._settings,
                    client_id=self._rae,
                    clean_start=True,
                    session_expiry_s=0,
                    will=will,
                    on_message=self._on_message,
                    on_puback=self._on_puback,
                    receive_maximum=IN_FLIGHT_MAX,
                )
        except MqttRefusedError as error:
            self._failed("refused", str(error))
            return getattr(error, "reason_code", None)
        except MqttUnreachableError as error:
            self._failed("unreachable", str(error))
            return None
        try:
            return await self._serve(client)
        finally:
            self._client = None
            self._journal.sending = False
            metrics.connected.dec()

    async def _serve(self, client: Client) -> int | None:
        metrics.connected.inc()
        metrics.connects.labels("connected").inc()
        self._in_flight.clear()
        self._limit = max(1, min(IN_FLIGHT_MAX, client.server_receive_maximum))
        self._receiving = client
        try:
            await asyncio.wait_for(self._subscribe(client), self._settings.connect_timeout_s)
        except (TimeoutError, MqttUnreachableError) as error:
            client.abort()
            self._failed("unreachable", f"no answer to SUBSCRIBE: {error}")
            return None
        _log.info(
            "%s: connected, run %d, epoch %d, %d rows wait", self._rae, self._run, self._epoch, self._journal.rows
        )
        self._journal.window.connected(time.monotonic(), run=self._run)
        self._journal.sending = True
        self._client = client
        self.problem = None
        self._status_due = True
        self._rosters = deque(self._voice.rosters())
        self._checkpoints.clear()
        await self._journal.refill()
        self.pump()
        why = await asyncio.shield(client.closed)
        if not self._stopping.is_set():
            self.problem = why
            _log.warning("%s: connection lost: %s", self._rae, why)
        return client.close_reason_code

    async def _subscribe(self, client: Client) -> None:
        await client.subscribe([ack_topic(self._rae)])
        # Retained requests are nobody's wish of now: neither the broker's copies nor new ones marked so are wanted.
        await client.subscribe([cmd_filter(self._rae)], retain_handling=2, retain_as_published=True)

    def _failed(self, outcome: str, sentence: str) -> None:
        metrics.connects.labels(outcome).inc()
        if self.problem != sentence:
            _log.warning("%s: broker: %s", self._rae, sentence)
        self.problem = sentence

    def say(self, *, state: RaeState | None = None) -> None:
        """Send a status soon: ``state`` is a change, None the periodic one (held back while nothing gets through)."""
        if state is not None:
            self._state = state
        elif self._held_back():
            return
        self._status_due = self.connected
        self.pump()

    def say_rosters(self) -> None:
        """Send the rosters soon, unless nothing gets through or the last ones still wait."""
        if self.connected and not self._rosters and not self._held_back():
            self._rosters.extend(self._voice.rosters())
            self.pump()

    def say_checkpoint(self, session: str, cause: str = "interval") -> bool:
        """Send the checkpoint of ``session`` soon: one at most waits per session, none while nothing gets through.

        Returns whether it will be sent, if the connection holds.
        """
        if not self.connected or self._held_back():
            return False
        self._checkpoints[session] = cause
        return True

    def reply(self, topic: str, payload: bytes) -> None:
        """Send an answer that is no outbox row, once; it outlives a lost connection, and nothing more."""
        if len(self._replies) >= REPLIES_MAX:
            self._replies.popleft()
            metrics.replies_dropped.inc()
        self._replies.append((topic, payload))
        self.pump()

    def _held_back(self) -> bool:
        return self._journal.window.holding_back(time.monotonic())

    def pump(self) -> None:
        """Hand the connection whatever may go now. Call it after anything that may have changed that."""
        client = self._client
        if client is None or client.closed.done() or self._journal.epoch != self._epoch:
            return
        now_s = time.monotonic()
        while len(self._in_flight) < self._limit and self._journal.window.open(now_s):
            if self._journal.window.bridge_absent and self._in_flight:
                return
            message = self._next(now_s)
            if message is None:
                break
            flight, topic, payload = message
            try:
                mid = client.publish(topic, payload, qos=flight.qos, retain=flight.kind == "status")
            except MqttUnreachableError as error:
                _log.warning("%s: publish: %s", self._rae, error)
                client.abort()
                return
            if flight.kind == "row":
                place = self._journal.window.sent(flight.seq, flight.qos, now_s)
            else:
                place = self._journal.window.sent_other(now_s, qos=flight.qos, mark=flight.mark)
            if flight.qos:
                self._in_flight[mid] = flight._replace(place=place)
            metrics.published.labels(flight.kind).inc()

    def _next(self, now_s: float) -> tuple[_Flight, str, bytes] | None:
        own_topic = info_topic(self._rae, RAE_SESSION)
        window = self._journal.window
        # While the broker may hold its fill, a RAE that is about to end still says so; all else waits or goes at QoS 0.
        if self._status_due and (self._state != "ready" or not window.broker_full):
            self._status_due = False
            return self._status(now_s, qos=1)
        ask_qos = window.ask(now_s)
        if ask_qos is not None:
            return self._status(now_s, qos=ask_qos)
        if self._rosters and not window.broker_full:
            roster = self._rosters.popleft()
            return _Flight("roster", now_s, roster=roster), own_topic, encode(roster)
        if self._replies and not window.broker_full:
            topic, payload = self._replies.popleft()
            return _Flight("reply", now_s), topic, payload
        due = window.due(now_s)
        if due is not None:
            flight = _Flight("row", now_s, qos=due.qos, seq=due.row.seq)
            return flight, str(self._topic_of(due.row)), self._stamped(due.row)
        while self._checkpoints and not window.broker_full and not window.holding_back(now_s):
            session = next(iter(self._checkpoints))
            checkpoint = self._voice.checkpoint(session, self._checkpoints.pop(session))
            if checkpoint is not None:
                return _Flight("checkpoint", now_s, session=session), info_topic(self._rae, session), checkpoint
        return None

    def _status(self, now_s: float, *, qos: int) -> tuple[_Flight, str, bytes]:
        mark = self._journal.window.next_mark()
        status = msgspec.structs.replace(self._voice.status(self._state, self._run), seq=mark)
        return _Flight("status", now_s, qos=qos, mark=mark), info_topic(self._rae, RAE_SESSION), encode(status)

    def _topic_of(self, row: Row) -> Topic:
        if row.requester is None:
            return Topic(self._rae, row.session, "info")
        return Topic(self._rae, row.session, "rsp", row.requester)

    def _stamped(self, row: Row) -> bytes:
        """The payload of ``row`` under this connection's epoch."""
        if row.epoch == self._epoch:
            return row.payload
        try:
            message: Any = decode(row.payload, self._topic_of(row))
            return encode(msgspec.structs.replace(message, epoch=self._epoch))
        except InvalidMessageError as error:  # of an earlier version: the cloud refuses it and asks for a checkpoint
            _log.warning("row %d is over a limit of today: %s", row.seq, error)
            members = msgspec.json.decode(row.payload, type=dict[str, msgspec.Raw])
            return msgspec.json.encode(members | {"epoch": self._epoch})

    def _on_puback(self, mid: int, reason_code: int) -> None:
        flight = self._in_flight.pop(mid, None)
        if not self._in_flight:
            self._answered.set()
        if flight is None:
            return
        now_s = time.monotonic()
        self.last_answer_s = now_s
        metrics.pubacks.labels(f"0x{reason_code:02x}").inc()
        self._journal.window.answered(flight.seq, flight.place, reason_code, now_s)
        if reason_code == 0x10:
            self._again(flight)
        elif reason_code >= 0x80:
            _log.warning("%s: the broker refused a %s with 0x%02x", self._rae, flight.kind, reason_code)
        self.pump()

    def _again(self, flight: _Flight) -> None:
        """Nobody subscribed: what is no row waits with the rows."""
        if flight.kind == "status":
            self._status_due = True
        elif flight.roster is not None and not self._rosters:
            self._rosters.extend(self._voice.rosters())
        elif flight.kind == "checkpoint":
            self._checkpoints[flight.session] = "interval"

    def _on_message(self, message: Message) -> None:
        client = self._receiving
        if client is None:
            return
        try:
            topic = parse_topic(message.topic)
        except InvalidTopicError:
            topic = None
        if topic is not None and topic.kind == "cmd" and topic.rae == self._rae and self.desk is not None:
            self.desk.receive(message, topic, functools.partial(client.ack, message))
            return
        if message.qos > 0:
            client.ack(message)
        self._on_durable(message)

    def _on_durable(self, message: Message) -> None:
        try:
            topic = parse_topic(message.topic)
            durable = decode(message.payload, topic)
        except (InvalidTopicError, InvalidMessageError) as error:
            metrics.messages_ignored.inc()
            _log.debug("%s: ignored a message on %s: %s", self._rae, message.topic, error)
            return
        if not isinstance(durable, Durable) or durable.rae != self._rae or durable.epoch != self._journal.epoch:
            metrics.messages_ignored.inc()
            return
        self._journal.stored(list(durable.stored), time.monotonic())
        if self._journal.rows == 0:
            self._drained.set()
        if self._journal.behind > 0:
            self._refill_soon()
        self.pump()

    def _refill_soon(self) -> None:
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.get_running_loop().create_task(self._refill(), name=f"refill {self._rae}")

    async def _refill(self) -> None:
        if await self._journal.refill():
            self.pump()

    def tick(self, now_s: float) -> None:
        """Once a second: what is due by time alone, and a connection that stopped answering."""
        client = self._client
        if client is None:
            return
        if self._journal.epoch != self._epoch:
            _log.warning("%s: a new epoch needs a new connection", self._rae)
            client.abort()
            return
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is not None and now_s - oldest.sent_s > UNANSWERED_MAX_S:
            _log.warning("%s: the broker has not answered for %d s", self._rae, UNANSWERED_MAX_S)
            client.abort()
            return
        if self._journal.behind > 0:
            self._refill_soon()
        self.pump()

    async def drain(self, timeout_s: float) -> bool:
        """Say ``draining`` and send until everything is durable or the time is up; True if the outbox is empty.

        A ``durable`` that was lost is made up for by sending again, sooner than the 30 s rule would.
        """
        self.say(state="draining")
        deadline_s = time.monotonic() + timeout_s
        again_s = DRAIN_AGAIN_FIRST_S
        if not self.connected:
            return self._journal.rows == 0
        while self._journal.rows and (left_s := deadline_s - time.monotonic()) > 0:
            self._drained.clear()
            try:
                await asyncio.wait_for(self._drained.wait(), min(again_s, left_s))
            except TimeoutError:
                again_s *= 2
                self._journal.window.again()
                self.pump()
        return self._journal.rows == 0

    async def stop(self) -> None:
        """Say ``disconnected`` and leave; bounded."""
        client = self._client
        self._stopping.set()
        if client is None:
            return
        self._client = None  # nothing else is sent from here on
        if client.closed.done():
            return
        self._answered.clear()
        payload = encode(self._voice.status("disconnected", self._run))
        with contextlib.suppress(TimeoutError, MqttUnreachableError):
            mid = client.publish(info_topic(self._rae, RAE_SESSION), payload, qos=1, retain=True)
            self._in_flight[mid] = _Flight("status", time.monotonic())
            await asyncio.wait_for(self._answered.wait(), FAREWELL_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.disconnect(), FAREWELL_S)
        if not client.closed.done():
            client.abort()

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)
