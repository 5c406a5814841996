"""What a real Mosquitto forgets is lost nowhere: the outboxes send again until the row is durable."""

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmpd.bridge.settings import BridgeSettings
from dmpd.runtime.settings import TopicSettings
from tests.support.aio import until
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.kafka_read import read_all
from tests.support.ledger import Publisher, Records, problems, unseen
from tests.support.services import KafkaService, MosquittoService, public_folder, start_mosquitto

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

PARTITIONS = 3


class Way:
    """From RAEs over a broker of this test's own to the session's Kafka."""

    def __init__(self, kafka: KafkaService, mosquitto: MosquittoService, folder: Path) -> None:
        self.mosquitto = mosquitto
        self._kafka = kafka
        names = {name: kafka.create_topic(partitions=PARTITIONS) for name in ("info", "rsp", "cmd")}
        self._topics = TopicSettings(**names, info_dead=kafka.create_topic(), partitions=PARTITIONS)
        self._folder = folder
        self.bridge = self.another("bridge")
        tag = uuid.uuid4().hex[:6]
        names = [f"T{tag}-{number}" for number in range(5)]
        self.publishers = [Publisher(rae, mosquitto.settings(rae), rows=200) for rae in names]

    def another(self, name: str) -> BridgeProcess:
        """One more bridge: at the broker all of them have one name."""
        sections = Sections(
            bridge=BridgeSettings(health_bind=f"unix:{self._folder}/{name}.sock", retry_first_s=0.1, retry_max_s=0.5),
            kafka=self._kafka.settings,
            mqtt=self.mosquitto.settings("svc-bridge"),
            topics=self._topics,
        )
        return BridgeProcess(sections, self._folder / f"{name}.log")

    @property
    def unstored(self) -> int:
        return sum(publisher.unstored for publisher in self.publishers)

    @property
    def acknowledged(self) -> int:
        return sum(len(publisher.acknowledged) for publisher in self.publishers)

    @property
    def in_kafka(self) -> int:
        return sum(self._kafka.end_offsets(self._topics.info))

    async def connected(self, times: int) -> None:
        await until(lambda: self.bridge.log.read_bytes().count(b"connected, session") >= times, "bridge connected")

    async def kill_broker(self) -> None:
        await asyncio.to_thread(self.mosquitto.process.kill)
        await asyncio.to_thread(self.mosquitto.process.start)

    async def restart_broker(self) -> None:
        await asyncio.to_thread(self.mosquitto.process.stop)
        await asyncio.to_thread(self.mosquitto.process.start)

    async def all_durable(self, sending: list[asyncio.Task[None]]) -> None:
        await until(lambda: all(task.done() for task in sending), "every row durable")
        for task in sending:
            task.result()

    def records(self) -> Records:
        records = read_all(self._kafka.bootstrap_servers, self._topics.info, PARTITIONS)
        return [(one.key(), one.value()) for one in records]

    def check(self) -> None:
        assert problems(self.publishers, self.records()) == []
        assert read_all(self._kafka.bootstrap_servers, self._topics.info_dead, 1) == []


@contextmanager
def way(kafka: KafkaService, folder: Path, broker_folder: Path, **lines: str) -> Iterator[Way]:
    with start_mosquitto(broker_folder, **lines) as mosquitto:
        found = Way(kafka, mosquitto, folder)
        found.bridge.start()
        try:
            yield found
        finally:
            found.bridge.stop()


def test_restarted_with_its_sessions_it_delivers_what_they_hold(kafka, tmp_path) -> None:
    async def scenario(found: Way) -> None:
        await found.connected(1)
        assert await asyncio.to_thread(found.bridge.stop) == 0
        sending = [asyncio.create_task(publisher.run()) for publisher in found.publishers]
        await until(lambda: found.acknowledged >= 5 * 64, "the windows are full, and all acknowledged")
        for task in sending:  # the outboxes send nothing again: what comes now, the broker kept
            task.cancel()
        await found.restart_broker()
        found.bridge.start()
        await until(lambda: found.in_kafka >= 5 * 64, "what the broker held is in Kafka")
        await found.restart_broker()
        await found.connected(3)
        assert found.bridge.log.read_bytes().count(b"connected, session resumed") == 2
        await found.all_durable([asyncio.create_task(publisher.run()) for publisher in found.publishers])
        found.check()

    with public_folder() as folder, way(kafka, tmp_path, folder) as found:
        asyncio.run(scenario(found))


def test_of_two_bridges_one_gives_way_and_the_other_carries(kafka, tmp_path) -> None:
    async def scenario(found: Way) -> None:
        await found.connected(1)
        other = found.another("other")
        other.start()
        try:
            logs = [one.log for one in (found.bridge, other)]
            await until(lambda: any(b"a second bridge" in one.read_bytes() for one in logs), "one gives way")
            await found.all_durable([asyncio.create_task(publisher.run()) for publisher in found.publishers])
            found.check()
        finally:
            await asyncio.to_thread(other.stop)

    with public_folder() as folder, way(kafka, tmp_path, folder) as found:
        asyncio.run(scenario(found))


def test_killed_with_its_default_persistence_it_forgets_sessions_and_queues(kafka, tmp_path) -> None:
    async def scenario(found: Way) -> None:
        await found.connected(1)
        sending = [asyncio.create_task(publisher.run()) for publisher in found.publishers]
        for mark in (700, 350):
            await until(lambda mark=mark: found.unstored <= mark, f"{mark} rows left")
            await found.kill_broker()
        await found.all_durable(sending)
        assert found.bridge.log.read_bytes().count(b"connected, session new") >= 3, "the broker kept the session"
        found.check()

    with public_folder() as folder, way(kafka, tmp_path, folder, autosave_interval="1800") as found:
        asyncio.run(scenario(found))


def test_with_its_queue_limits_exceeded_it_drops_in_silence_and_the_gap_is_seen_and_healed(kafka, tmp_path) -> None:
    async def scenario(found: Way) -> None:
        await found.connected(1)
        assert await asyncio.to_thread(found.bridge.stop) == 0
        sending = [asyncio.create_task(publisher.run()) for publisher in found.publishers]
        await until(lambda: found.acknowledged >= 5 * 64, "the windows are full, and all acknowledged")
        found.bridge.start()
        await found.all_durable(sending)
        wrong, stale = unseen(found.publishers, found.records())
        assert wrong == []
        assert stale, "the broker dropped nothing that anybody could miss"
        for row in stale:
            next(one for one in found.publishers if one.rae == row.rae).commit_checkpoint(row.session)
        await found.all_durable([asyncio.create_task(publisher.run()) for publisher in found.publishers])
        assert unseen(found.publishers, found.records()) == ([], [])

    limits = {"max_queued_messages": "50", "max_inflight_messages": "20"}
    with public_folder() as folder:
        with way(kafka, tmp_path, folder, **limits) as found:
            asyncio.run(scenario(found))
        assert b"Outgoing messages are being dropped" in found.mosquitto.process.log.read_bytes()  # written at its end


@pytest.mark.namespaces
def test_with_its_disk_full_and_then_killed(kafka, tmp_path) -> None:
    async def scenario(found: Way, disk: Path) -> None:
        await found.connected(1)
        (disk / "ballast").write_bytes(b"x" * ((1 << 20) - 64 * 1024))
        sending = [asyncio.create_task(publisher.run()) for publisher in found.publishers]
        await until(lambda: found.unstored <= 600, "it carries on without its disk")
        await found.kill_broker()
        await found.all_durable(sending)
        found.check()

    with public_folder() as folder:
        disk = folder / "mosquitto"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "dmpd-test", str(disk)], check=True)
        try:
            with way(kafka, tmp_path, folder) as found:
                asyncio.run(scenario(found, disk))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
