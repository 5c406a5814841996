"""``dmpd bridge``: start-up, health, and the graceful end of uplink and downlink."""

import asyncio
import contextlib
import functools
import logging
import random
import time
from typing import Any, Final

import uvloop

from dmpd.bridge.downlink import GROUP, Downlink
from dmpd.bridge.feed import Feed
from dmpd.bridge.settings import BridgeSettings
from dmpd.bridge.uplink import TICK_S, Uplink
from dmpd.runtime import exit_codes
from dmpd.runtime.health import HealthServer
from dmpd.runtime.kafka import KafkaRefusedError, KafkaUnreachableError, Producer, ensure_reachable
from dmpd.runtime.kafka_admin import list_end_offsets
from dmpd.runtime.kafka_follow import Follower
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.mqtt import MqttClient
from dmpd.runtime.settings import KafkaSettings, MqttSettings, TopicSettings
from dmpd.runtime.watchdog import Watchdog

PROGRAM: Final = "bridge"
_WATCH_S: Final = 0.1
_BEAT_S: Final = 1.0
_REACH_S: Final = 3.0
_RETRY_S: Final = 1.0
_CLOSE_S: Final = 1.0

_log = logging.getLogger(__name__)


def run(
    settings: BridgeSettings, *, kafka: KafkaSettings, mqtt: MqttSettings, topics: TopicSettings, lifecycle: Lifecycle
) -> int:
    """Run the bridge until a signal ends it; blocks. Returns the exit code."""
    daemon = _Daemon(settings, kafka=kafka, mqtt=mqtt, topics=topics, lifecycle=lifecycle)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(daemon.run())


def make_producer(
    settings: BridgeSettings, kafka: KafkaSettings, topics: TopicSettings, *, one_by_one: bool
) -> Producer:
    """A producer for the uplink: ``uplink.MakeProducer``."""
    batches: dict[str, object] = {"batch_num_messages": 1} if one_by_one else {}
    return Producer(
        kafka,
        PROGRAM,
        # Room for twice the bound: then the gate, which pauses reading, acts before the producer's own queue is full.
        queue_buffering_max_messages=2 * settings.in_flight_messages_max,
        queue_buffering_max_kbytes=2 * settings.in_flight_bytes_max // 1024,
        message_max_bytes=topics.max_message_bytes,
        # A batch that is refused for good ends the producer, or what comes behind it would pass it: per-key order.
        enable_gapless_guarantee=True,
        **batches,
    )


class _Daemon:
    def __init__(
        self,
        settings: BridgeSettings,
        *,
        kafka: KafkaSettings,
        mqtt: MqttSettings,
        topics: TopicSettings,
        lifecycle: Lifecycle,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._mqtt = mqtt
        self._topics = topics
        self._lifecycle = lifecycle
        self._uplink: Uplink | None = None
        self._downlink: Downlink | None = None
        self._problem = "Kafka was not reached yet"
        self._watchdog = Watchdog()

    async def run(self) -> int:
        self._lifecycle.install_async(asyncio.get_running_loop())
        health = HealthServer(self._settings.health_bind, self._lifecycle, self._status)
        health.start()
        self._watchdog.start()
        beating = asyncio.create_task(self._beat(), name="watchdog beats")
        try:
            return await self._serve()
        finally:
            self._lifecycle.set_state("stopped")
            beating.cancel()
            self._watchdog.stop()
            health.stop()

    async def _beat(self) -> None:
        while True:
            self._watchdog.beat()
            await asyncio.sleep(_BEAT_S)

    def _status(self) -> dict[str, Any]:
        uplink, downlink = self._uplink, self._downlink
        if uplink is None or downlink is None:
            return {"connected": False, "problem": self._problem}
        return uplink.status() | {"requests": downlink.status()}

    async def _serve(self) -> int:
        try:
            partitions = await self._reach_kafka()
        except KafkaRefusedError as error:
            _log.error("Kafka: %s", error)
            return exit_codes.CONFIG
        if partitions is None:
            return exit_codes.OK
        self._downlink = downlink = self._make_downlink(partitions)
        self._uplink = uplink = Uplink(
            self._settings,
            mqtt=self._mqtt,
            topics=self._topics,
            partitions=partitions,
            connect=MqttClient.connect,
            make_producer=functools.partial(make_producer, self._settings, self._kafka, self._topics),
            random=random.random,
            passenger=downlink,
            ask_partitions=self._ask_partitions,
        )
        running = asyncio.create_task(uplink.run(), name="uplink")
        requests = asyncio.create_task(self._requests(downlink), name="downlink")
        try:
            await self._watch(uplink, downlink, running, requests)
            requests.cancel()
            await downlink.stop()
            await self._end(uplink)
            await asyncio.wait((running,), timeout=_CLOSE_S)
        finally:
            uplink.stop()
            requests.cancel()
            await downlink.stop()
            running.cancel()  # it may be in the middle of a connect, which nobody needs any more
            with contextlib.suppress(asyncio.CancelledError):
                await running
        return exit_codes.OK

    async def _reach_kafka(self) -> dict[str, int] | None:
        """Wait for Kafka and our topics, however long it takes; partitions by topic, or None if we were stopped."""
        while not self._lifecycle.stop_requested:
            try:
                return await asyncio.to_thread(self._partitions, self._topics.cmd)
            except KafkaUnreachableError as error:
                self._problem = str(error)
                self._lifecycle.set_state("degraded", self._problem)
                await asyncio.sleep(_RETRY_S)
        return None

    async def _ask_partitions(self) -> dict[str, int] | None:
        """As ``_reach_kafka``, while the uplink runs: whatever is wrong now, it was right at the start."""
        while not self._lifecycle.stop_requested:
            try:
                return await asyncio.to_thread(self._partitions)
            except (KafkaUnreachableError, KafkaRefusedError) as error:
                if self._uplink is not None:
                    self._uplink.problem = f"Kafka: {error}"
                await asyncio.sleep(_RETRY_S)
        return None

    def _partitions(self, *more: str) -> dict[str, int]:
        """Of the topics that the uplink writes to, and of ``more``.

        Raises:
            KafkaUnreachableError: No answer, or one of them is missing; names it.
        """
        ensure_reachable(self._kafka, PROGRAM, _REACH_S)
        names = (self._topics.info, self._topics.rsp, self._topics.info_dead, *more)
        return {name: len(list_end_offsets(self._kafka, name)) for name in names}

    def _make_downlink(self, partitions: dict[str, int]) -> Downlink:
        kafka, topics = self._kafka, self._topics
        return Downlink(
            self._settings,
            topics=topics,
            partitions=partitions,
            make_feed=lambda sink: Feed(
                sink,
                open_requests=lambda: Follower(kafka, topics.cmd, group=GROUP),
                open_responses=lambda since_ms: Follower(kafka, topics.rsp, group="", since_ms=since_ms),
            ),
            make_producer=lambda: Producer(kafka, PROGRAM, message_max_bytes=topics.max_message_bytes),
        )

    async def _requests(self, downlink: Downlink) -> None:
        downlink.start()
        while True:
            await asyncio.sleep(TICK_S)
            downlink.tick(time.monotonic())

    async def _watch(
        self, uplink: Uplink, downlink: Downlink, running: "asyncio.Task[None]", requests: "asyncio.Task[None]"
    ) -> None:
        """Keep the state that readiness shows true, until a signal comes or one of the two fails."""
        shown: str | None = ""
        while not self._lifecycle.stop_requested and not running.done():
            if requests.done():
                requests.result()  # raises what it died of
            problem = uplink.problem or downlink.problem
            if problem != shown:
                shown = problem
                self._lifecycle.set_state("ready" if shown is None else "degraded", shown or "")
            await asyncio.sleep(_WATCH_S)

    async def _end(self, uplink: Uplink) -> None:
        self._lifecycle.set_state("draining")
        left = await uplink.drain(self._settings.drain_timeout_s, hurry=lambda: self._lifecycle.second_stop)
        if left:
            _log.warning("%d messages stay unacknowledged; the broker delivers them to the next bridge", left)
        else:
            _log.info("drained")
