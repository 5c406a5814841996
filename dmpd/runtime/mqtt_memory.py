"""The in-memory twin of an MQTT 5 broker and of ``MqttClient``, under the same contract tests.

One broker per event loop. It can be told to die, to freeze and to refuse, as a real one does at the worst moment.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dmpd.runtime.mqtt import (
    SESSION_TAKEN_OVER,
    Message,
    MqttRefusedError,
    MqttUnreachableError,
    OnMessage,
    OnPuback,
    Will,
)
from dmpd.runtime.settings import MqttSettings

NO_MATCHING_SUBSCRIBERS: Final = 0x10
NOT_AUTHORIZED: Final = 0x87

ADMINISTRATIVE_ACTION: Final = 0x98

Allow = Callable[[str, str, str], bool]
"""``(principal, "write" | "read", topic)`` → allowed."""
AllowSubscribe = Callable[[str, str], bool]
"""``(principal, filter)`` → not refused."""


class _Subscription(NamedTuple):
    qos: int
    retain_as_published: bool


class _Session:
    """What the broker keeps of one client id: filters, and QoS 1 messages not yet acknowledged, oldest first."""

    def __init__(self) -> None:
        self.filters: dict[str, _Subscription] = {}
        self.queue: deque[Message] = deque()
        self.unacknowledged: dict[int, Message] = {}
        self.next_mid = 1
        self.expiry_s = 0


class MemoryBroker:
    """Sessions, retained messages, wills, QoS 0 and 1, receive maximum, access rules. Not for several threads."""

    def __init__(
        self,
        *,
        allow: Allow = lambda principal, action, topic: True,
        allow_subscribe: AllowSubscribe = lambda principal, pattern: True,
    ) -> None:
        self.allow = allow
        self.allow_subscribe = allow_subscribe
        self.refuse_code = 0
        """Every CONNECT is answered with this reason code when it is not 0."""
        self.frozen = False
        self._up = True
        self._sessions: dict[str, _Session] = {}
        self._clients: dict[str, MemoryClient] = {}
        self._retained: dict[str, Message] = {}
        self._waiting: deque[Callable[[], None]] = deque()

    async def connect(
        self,
        settings: MqttSettings,
        *,
        client_id: str,
        clean_start: bool,
        session_expiry_s: int,
        will: Will | None,
        on_message: OnMessage,
        on_puback: OnPuback,
        receive_maximum: int,
    ) -> "MemoryClient":
        """As ``MqttClient.connect``; the client id is the principal."""
        await asyncio.sleep(0)
        if not self._up or self.frozen:
            raise MqttUnreachableError("the broker does not answer")
        if self.refuse_code:
            raise MqttRefusedError(self.refuse_code, "refused")
        if client_id in self._clients:
            self._clients[client_id].drop("taken over", SESSION_TAKEN_OVER)
        present = client_id in self._sessions and not clean_start
        session = self._sessions[client_id] if present else _Session()
        session.expiry_s = session_expiry_s
        session.queue.extendleft(message._replace(dup=True) for message in reversed(session.unacknowledged.values()))
        session.unacknowledged.clear()
        session.queue = deque(message for message in session.queue if self.allow(client_id, "read", message.topic))
        self._sessions[client_id] = session
        client = MemoryClient(
            self,
            client_id,
            session,
            will=will,
            on_message=on_message,
            on_puback=on_puback,
            receive_maximum=receive_maximum,
            session_present=present,
        )
        self._clients[client_id] = client
        self.do(client.deliver)
        return client

    def kill(self, *, sessions_survive: bool = False) -> None:
        """Die as by kill -9: connections end without a will; sessions and retained messages go unless they survive."""
        self._up = False
        for client in list(self._clients.values()):
            client.drop("connection reset", will=False)
        if not sessions_survive:
            self._sessions.clear()
            self._retained.clear()

    def start(self) -> None:
        self._up = True

    def kick(self, client_id: str) -> None:
        """End a connection, if there is one, as Mosquitto does when the rules of its principal change."""
        if client_id in self._clients:
            self._clients[client_id].drop("Administrative action", ADMINISTRATIVE_ACTION)

    def freeze(self) -> None:
        """Stand still as under SIGSTOP: connections stay open, nothing is answered."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        while self._waiting and not self.frozen:
            asyncio.get_running_loop().call_soon(self._waiting.popleft())

    def do(self, action: Callable[[], None]) -> None:
        """Run ``action`` soon, or when the broker thaws."""
        if self.frozen:
            self._waiting.append(action)
        else:
            asyncio.get_running_loop().call_soon(action)

    def publish(
        self, principal: str, topic: str, payload: bytes, *, qos: int, retain: bool, expiry_s: int | None
    ) -> int:
        """Hand a message to all who subscribed; returns the PUBACK's reason code."""
        if not self.allow(principal, "write", topic):
            return NOT_AUTHORIZED
        message = Message(topic, payload, qos, retain=False, dup=False, mid=0, expiry_s=expiry_s)
        if retain:
            self._retained[topic] = message._replace(retain=True)
        matched = False
        for client_id, session in list(self._sessions.items()):
            granted = [granted for pattern, granted in session.filters.items() if matches(pattern, topic)]
            if not granted:
                continue
            matched = True
            if self.allow(client_id, "read", topic):
                marked = retain and any(one.retain_as_published for one in granted)
                best = max(one.qos for one in granted)
                self._enqueue(client_id, session, message._replace(qos=min(qos, best, 1), retain=marked))
        return 0 if matched else NO_MATCHING_SUBSCRIBERS

    def subscribe(
        self, client_id: str, filters: Sequence[str], qos: int, retain_handling: int, *, retain_as_published: bool
    ) -> list[int]:
        session = self._sessions[client_id]
        codes = [qos if self.allow_subscribe(client_id, pattern) else NOT_AUTHORIZED for pattern in filters]
        for pattern in [pattern for pattern, code in zip(filters, codes, strict=True) if code != NOT_AUTHORIZED]:
            is_new = pattern not in session.filters
            session.filters[pattern] = _Subscription(qos, retain_as_published)
            if retain_handling == 0 or (retain_handling == 1 and is_new):
                for topic, message in self._retained.items():
                    if matches(pattern, topic) and self.allow(client_id, "read", topic):
                        self._enqueue(client_id, session, message)
        return codes

    def gone(self, client: "MemoryClient") -> None:
        """A connection ended: its session goes too, if it has no expiry."""
        if self._clients.get(client.client_id) is client:
            del self._clients[client.client_id]
            if client.session.expiry_s == 0:
                self._sessions.pop(client.client_id, None)

    def _enqueue(self, client_id: str, session: _Session, message: Message) -> None:
        client = self._clients.get(client_id)
        if message.qos == 0 and client is None:
            return
        session.queue.append(message)
        if client is not None:
            self.do(client.deliver)


class MemoryClient:
    """One life of one connection to a ``MemoryBroker``; the methods are those of ``MqttClient``."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        session: _Session,
        *,
        will: Will | None,
        on_message: OnMessage,
        on_puback: OnPuback,
        receive_maximum: int,
        session_present: bool,
    ) -> None:
        self.client_id = client_id
        self.session = session
        self.session_present = session_present
        self.server_receive_maximum = 65_535
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.close_reason_code = 0
        self._broker = broker
        self._will = will
        self._on_message = on_message
        self._on_puback = on_puback
        self._receive_maximum = receive_maximum
        self._reading = True
        self._last_mid = 0

    async def subscribe(
        self, filters: Sequence[str], *, qos: int = 1, retain_handling: int = 1, retain_as_published: bool = False
    ) -> list[int]:
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def act() -> None:
            if not self.closed.done() and not answer.done():
                granted = self._broker.subscribe(
                    self.client_id, filters, qos, retain_handling, retain_as_published=retain_as_published
                )
                answer.set_result(granted)

        self._broker.do(act)
        both: Sequence[asyncio.Future[object]] = (answer, self.closed)  # type: ignore[assignment]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise MqttUnreachableError(f"closed while subscribing: {self.closed.result()}")
        return answer.result()

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, expiry_s: int | None = None
    ) -> int:
        self._last_mid += 1
        mid = self._last_mid

        def act() -> None:
            if self.closed.done():
                return
            code = self._broker.publish(self.client_id, topic, payload, qos=qos, retain=retain, expiry_s=expiry_s)
            if qos > 0:
                self._on_puback(mid, code)

        self._broker.do(act)
        return mid

    def ack(self, message: Message) -> None:
        self.ack_all((message,))

    def ack_all(self, messages: Sequence[Message]) -> None:
        def act() -> None:
            if not self.closed.done():
                for message in messages:
                    self.session.unacknowledged.pop(message.mid, None)
                self.deliver()

        self._broker.do(act)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._broker.do(self.deliver)

    async def disconnect(self, *, reason_code: int = 0) -> None:
        """As ``MqttClient.disconnect``: no will."""
        self._will = None
        await asyncio.sleep(0)
        self.drop("Normal disconnection")

    def abort(self) -> None:
        self.drop("aborted")

    def deliver(self) -> None:
        """Hand over what is queued, as far as the receive maximum lets."""
        session = self.session
        while self._reading and session.queue and not self.closed.done() and not self._broker.frozen:
            if session.queue[0].qos > 0 and len(session.unacknowledged) >= self._receive_maximum:
                return
            message = session.queue.popleft()
            if message.qos > 0:
                message = message._replace(mid=session.next_mid)
                session.next_mid += 1
                session.unacknowledged[message.mid] = message
            self._on_message(message)

    def drop(self, why: str, reason_code: int = 0, *, will: bool = True) -> None:
        """End this connection from the broker's side, or ours."""
        if self.closed.done():
            return
        self.close_reason_code = reason_code
        self.closed.set_result(why)
        self._broker.gone(self)
        if will and self._will is not None:
            last = self._will
            self._broker.publish(
                self.client_id, last.topic, last.payload, qos=last.qos, retain=last.retain, expiry_s=None
            )


def matches(pattern: str, topic: str) -> bool:
    """Whether the MQTT filter ``pattern`` covers ``topic``; wildcards do not cover ``$`` topics."""
    wanted, found = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("#", "+"):
        return False
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(found) or level not in ("+", found[at]):
            return False
    return len(wanted) == len(found)
