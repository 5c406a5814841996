"""MQTT to Kafka: a message is acknowledged to the broker after Kafka has it, never before.

One connection after the other, always into the same broker session. What is in flight when a connection or a producer
ends is acknowledged by nobody, so the broker delivers it again: duplicates, no loss. Here are the connections; what
comes on them is ``carrier``'s.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from dmpd.bridge import metrics
from dmpd.bridge.carrier import Carrier, Client, MakeProducer
from dmpd.bridge.gate import Gate, GateState
from dmpd.bridge.rival import STABLE_S, Rival
from dmpd.bridge.settings import BridgeSettings
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.mqtt import SESSION_TAKEN_OVER, MqttRefusedError, MqttUnreachableError
from dmpd.runtime.settings import MqttSettings, TopicSettings

CLIENT_ID: Final = "svc-bridge"
FILTERS: Final = ("dmp/v1/+/+/info", "dmp/v1/+/+/rsp/+")
TICK_S: Final = 0.1
_log = logging.getLogger(__name__)


Connect = Callable[..., Awaitable[Client]]
"""``MqttClient.connect``, or that of the in-memory broker."""


AskPartitions = Callable[[], Awaitable[Mapping[str, int] | None]]
"""Waits until Kafka says how many partitions each topic has; None if the program ends first."""


class Passenger(Protocol):
    """Who else uses the connection: the downlink. A name has one connection only."""

    def attached(self, client: Any) -> None: ...
    def detached(self) -> None: ...
    def puback(self, mid: int, reason_code: int) -> None: ...


class Uplink:
    """Runs until ``stop``. Everything happens on the loop's thread; only ``status`` may be called from others."""

    def __init__(
        self,
        settings: BridgeSettings,
        *,
        mqtt: MqttSettings,
        topics: TopicSettings,
        partitions: Mapping[str, int],
        connect: Connect,
        make_producer: MakeProducer,
        random: Callable[[], float],
        passenger: Passenger | None = None,
        ask_partitions: AskPartitions | None = None,
    ) -> None:
        self._settings = settings
        self._passenger = passenger
        self._mqtt = mqtt
        self._connect = connect
        self._gate = Gate(
            bytes_max=settings.in_flight_bytes_max,
            messages_max=settings.in_flight_messages_max,
            leave_after_s=mqtt.keepalive_s / 2,
        )
        self._carrier = Carrier(
            settings,
            topics=topics,
            partitions=partitions,
            gate=self._gate,
            make_producer=make_producer,
            on_change=self._carried,
            on_failure=self._producer_failed,
        )
        self._ask_partitions = ask_partitions
        self._producer_failure = ""
        self._trouble = Backoff(settings.retry_first_s, settings.retry_max_s, random=random)
        self._takeovers = Backoff(settings.takeover_retry_first_s, settings.takeover_retry_max_s, random=random)
        self._rival = Rival()
        self._client: Client | None = None
        self._reading = True
        self._paused = False
        self._left_for_kafka = False
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self.problem: str | None = "not connected yet"
        """Why nothing flows, for status and readiness; None while all is well."""

    def status(self) -> dict[str, Any]:
        """A snapshot for ``/status``; approximate, from any thread."""
        now_s = time.monotonic()
        return {
            "connected": self._client is not None,
            "problem": self.problem,
            "in_flight_messages": self._gate.messages,
            "in_flight_bytes": self._gate.bytes,
            "unacknowledged": len(self._carrier.acks),
            "puback_age_s": round(self._carrier.acks.oldest_age_s(now_s), 3),
            "gate": self._gate.state(now_s).value,
            "paused_s": round(self._gate.closed_s(now_s), 3),
            "durable_lag": [{"rae": one.rae, "lag_s": round(one.lag_s, 3)} for one in self._carrier.worst],
        }

    async def run(self) -> None:
        """Connect, carry, reconnect with backoff. Never raises for the network's or Kafka's sake; ends by ``stop``."""
        ticking = asyncio.create_task(self._ticks(), name="bridge ticks")
        try:
            while not self._stop.is_set():
                if not self._carrier.has_producer():
                    await self._new_producer()
                await self._wait(self._may_connect)
                if self._stop.is_set():
                    break
                delay_s = await self._one_connection()
                if delay_s > 0:
                    await self._wait(lambda: False, timeout_s=delay_s)
        finally:
            ticking.cancel()
            self._carrier.close()

    async def _new_producer(self) -> None:
        """After a failure, first see how many partitions there are: the topics may have been made anew."""
        if self._producer_failure and self._ask_partitions is not None:
            partitions = await self._ask_partitions()
            if partitions is None:
                return
            self._carrier.partitions = partitions
        self._carrier.new_producer()

    def stop(self) -> None:
        """Make ``run`` end; what is unacknowledged stays with the broker. ``drain`` first for a graceful end."""
        self._stop.set()
        self._changed.set()
        if self._client is not None and not self._client.closed.done():
            self._client.abort()

    async def drain(self, timeout_s: float, *, hurry: Callable[[], bool] = lambda: False) -> int:
        """Stop reading, acknowledge what Kafka confirms in time, tell the RAEs, leave the session to the next bridge.

        Args:
            timeout_s: How long to wait for Kafka.
            hurry: Asked repeatedly; True ends the wait at once.

        Returns:
            How many messages stay unacknowledged; the broker delivers them again.
        """
        self._reading = False
        client = self._client
        if client is None or client.closed.done():
            self.stop()
            return 0
        self._read_or_pause()
        await self._wait(
            lambda: not self._carrier.acks or client.closed.done() or hurry(), timeout_s=timeout_s, even_stopped=True
        )
        left = len(self._carrier.acks)
        self._stop.set()
        if not client.closed.done():
            self._carrier.farewell()
            await client.disconnect()
        self.stop()
        return left

    # --- connections

    def _may_connect(self) -> bool:
        return not self._carrier.has_producer() or self._gate.state(time.monotonic()) is GateState.OPEN

    async def _one_connection(self) -> float:
        """From connect to its end; returns how long to wait before the next one, in seconds."""
        if not self._carrier.has_producer():
            return self._failed("producer", self._producer_failure)
        epoch = self._carrier.new_connection()
        self._left_for_kafka = self._paused = False
        try:
            client = await self._connect(
                self._mqtt,
                client_id=CLIENT_ID,
                clean_start=False,
                session_expiry_s=self._settings.session_expiry_s,
                will=None,
                on_message=functools.partial(self._carrier.on_message, epoch),
                on_puback=self._on_puback,
                receive_maximum=self._settings.receive_maximum,
            )
        except MqttRefusedError as error:
            return self._failed("refused", str(error))
        except MqttUnreachableError as error:
            self._rival.broker_away()
            return self._failed("unreachable", str(error))
        self._client = client
        metrics.connected.set(1)
        try:
            return await self._serve(client)
        finally:
            if self._passenger is not None:
                self._passenger.detached()
            self._client = None
            self._carrier.detach()
            metrics.connected.set(0)

    async def _serve(self, client: Client) -> float:
        if self._stop.is_set():
            client.abort()
            return 0
        if not self._carrier.has_producer():  # it failed while we connected
            client.abort()
            return self._failed("producer", self._producer_failure)
        self._read_or_pause()
        self._carrier.attach(client)
        try:
            codes = await asyncio.wait_for(client.subscribe(FILTERS), self._mqtt.connect_timeout_s)
        except (TimeoutError, MqttUnreachableError) as error:
            client.abort()
            taken_over = client.close_reason_code == SESSION_TAKEN_OVER
            return self._failed("unreachable", f"no answer to SUBSCRIBE: {error}", taken_over=taken_over)
        if any(code >= 0x80 for code in codes):
            await client.disconnect()
            return self._failed("refused", f"SUBSCRIBE was refused: {codes}")
        metrics.connects.labels("connected").inc()
        _log.info("connected, session %s", "resumed" if client.session_present else "new")
        self.problem = None
        if self._passenger is not None:
            self._passenger.attached(client)
        began_s = time.monotonic()
        why = await asyncio.shield(client.closed)
        if self._stop.is_set():
            return 0
        if self._left_for_kafka:
            self.problem = "Kafka does not answer; left the broker until it does"
            return 0
        if not self._carrier.has_producer():
            return self._failed("producer", self._producer_failure)
        lived_s = time.monotonic() - began_s
        if lived_s > STABLE_S:
            self._trouble.reset()
            self._takeovers.reset()
        taken_over = self._rival.took_over(client.close_reason_code, lived_s)
        return self._failed("lost", why, taken_over=taken_over)

    def _failed(self, outcome: str, sentence: str, *, taken_over: bool = False) -> float:
        metrics.connects.labels(outcome).inc()
        if taken_over:  # two bridges must not fight over the name
            sentence += "; does a second bridge run?"
        delay_s = (self._takeovers if taken_over else self._trouble).next_s()
        _log.warning("connection %s: %s; again in %.1f s", outcome, sentence, delay_s)
        self.problem = sentence
        return delay_s

    # --- what the carrier tells

    def _carried(self) -> None:
        self._read_or_pause()
        self._changed.set()

    def _producer_failed(self, sentence: str) -> None:
        self._producer_failure = sentence
        if self._client is not None:
            self._client.abort()
        self._changed.set()

    def _on_puback(self, mid: int, reason_code: int) -> None:
        if self._passenger is not None:  # what the uplink itself publishes goes at QoS 0
            self._passenger.puback(mid, reason_code)

    def _read_or_pause(self) -> None:
        """Bring the socket to what the gate and a drain want."""
        client = self._client
        if client is None or client.closed.done():
            return
        state = self._gate.state(time.monotonic())
        wanted = state is not GateState.OPEN or not self._reading or self._carrier.emptying
        if wanted != self._paused:
            self._paused = wanted
            if wanted:
                client.pause_reading()
            else:
                client.resume_reading()
        if state is GateState.LEAVE and self._reading and not self._left_for_kafka:
            self._left_for_kafka = True
            _log.warning("Kafka has not confirmed for long: leaving the broker; its session keeps what comes")
            self._spawn_disconnect(client)

    def _spawn_disconnect(self, client: Client) -> None:
        task = asyncio.create_task(client.disconnect(), name="leave the broker")
        task.add_done_callback(functools.partial(_end_of_disconnect, client))

    # --- time

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick(time.monotonic())

    def tick(self, now_s: float) -> None:
        """What is due by time alone."""
        self._carrier.tick(now_s)
        self._read_or_pause()
        self._changed.set()

    async def _wait(
        self, condition: Callable[[], bool], *, timeout_s: float = float("inf"), even_stopped: bool = False
    ) -> None:
        """Until ``condition`` holds, the time is over, or (unless ``even_stopped``) ``stop`` was called."""
        deadline_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline_s and (even_stopped or not self._stop.is_set()):
            self._changed.clear()
            await self._changed.wait()  # set by every tick, so the deadline holds to 0.1 s


def _end_of_disconnect(client: Client, task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.warning("DISCONNECT failed: %s", task.exception())
        client.abort()
