"""The history checker: RAEs commit rows while bridge, broker and Kafka are killed, frozen and cut in random order.

``make chaos`` runs ten minutes of faults with a seed of its own; ``CHAOS_S`` and ``CHAOS_SEED`` set both.
"""

import asyncio
import itertools
import os
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from dmpd.bridge.settings import BridgeSettings
from dmpd.lab.kafka import Kafka
from dmpd.lab.server import free_ports
from dmpd.model.topics import partition_of
from dmpd.runtime.settings import MqttSettings, TopicSettings
from tests.support import chaos
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.kafka_read import read_all
from tests.support.ledger import Publisher, problems
from tests.support.proxy import TcpProxy
from tests.support.services import KafkaService, MosquittoService, public_folder, start, start_mosquitto

CHAOS_S = float(os.environ.get("CHAOS_S", "60"))
SEED = int(os.environ.get("CHAOS_SEED", str(uuid.uuid4().int % 1_000_000)))
HEAL_S = 180.0
PARTITIONS = 3
RAES = 20
ROWS_PER_S = 150.0

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(CHAOS_S + HEAL_S + 240)]


class ProxiedKafka(Kafka):
    """Tells its clients that it lives at the proxy's port."""

    def __init__(self, folder: Path, *, proxy_port: int) -> None:
        port, controller_port = free_ports(2)
        super().__init__(folder, port=port, controller_port=controller_port)
        self.bootstrap_servers = f"127.0.0.1:{proxy_port}"

    def prepare(self) -> None:
        super().prepare()
        path, own = self.folder / "server.properties", f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}"
        text = path.read_text()
        assert own in text
        path.write_text(text.replace(own, f"advertised.listeners=PLAINTEXT://{self.bootstrap_servers}"))


class Lab:
    """Broker, Kafka and bridge with a proxy on each way, and the RAEs."""

    def __init__(self, mosquitto: MosquittoService, kafka: KafkaService, server: Kafka, ports: list[int]) -> None:
        self.kafka = kafka
        self._mosquitto = mosquitto
        edge, bridge, to_kafka = ports
        self.proxies = {
            "RAEs to broker": TcpProxy(mosquitto.port, port=edge),
            "bridge to broker": TcpProxy(mosquitto.port, port=bridge),
            "bridge to Kafka": TcpProxy(server.port, port=to_kafka),
        }
        tag = uuid.uuid4().hex[:6]
        self.publishers = [
            Publisher(rae, self._mqtt(rae, "RAEs to broker"), rows=1, committing=True)
            for rae in (f"T{tag}-{number}" for number in range(RAES))
        ]

    def _mqtt(self, principal: str, way: str) -> MqttSettings:
        settings = self._mosquitto.settings(principal)
        return msgspec.structs.replace(settings, port=self.proxies[way].port, keepalive_s=5, connect_timeout_s=3)

    def topics(self) -> TopicSettings:
        names = {name: self.kafka.create_topic(partitions=PARTITIONS) for name in ("info", "rsp", "cmd")}
        return TopicSettings(**names, info_dead=self.kafka.create_topic(), partitions=PARTITIONS)

    def bridge(self, topics: TopicSettings, folder: Path) -> BridgeProcess:
        health = f"unix:{folder}/health.sock"
        sections = Sections(
            bridge=BridgeSettings(health_bind=health, retry_first_s=0.2, retry_max_s=2.0),
            kafka=self.kafka.settings,
            mqtt=self._mqtt("svc-bridge", "bridge to broker"),
            topics=topics,
        )
        return BridgeProcess(sections, folder / "bridge.log")

    def victims(self, bridge: BridgeProcess) -> dict[str, list[chaos.Fault]]:
        found = {way: chaos.of_proxy(way, proxy) for way, proxy in self.proxies.items()}
        found["bridge"] = chaos.of_bridge(bridge)
        found["broker"] = chaos.of_server("broker", self._mosquitto.process)
        found["Kafka"] = chaos.of_server("Kafka", self.kafka.process)
        return found

    async def commit_until(self, running: asyncio.Task[None]) -> None:
        """New rows, the RAEs in turn, as long as the faults go on."""
        for publisher in itertools.cycle(self.publishers):
            if running.done():
                break
            publisher.commit()
            await asyncio.sleep(1 / ROWS_PER_S)
        for publisher in self.publishers:
            publisher.committing = False

    async def all_durable(self, sending: list[asyncio.Task[None]]) -> None:
        deadline_s = time.monotonic() + HEAL_S
        while not all(task.done() for task in sending):
            left = sum(publisher.unstored for publisher in self.publishers)
            assert time.monotonic() < deadline_s, f"{left} rows are not durable {HEAL_S:g} s after the last fault"
            await asyncio.sleep(0.05)
        for task in sending:
            task.result()

    def check(self, topics: TopicSettings) -> None:
        records = read_all(self.kafka.bootstrap_servers, topics.info, PARTITIONS)
        assert problems(self.publishers, [(one.key(), one.value()) for one in records]) == []
        found = {one.key().split(b"/")[2].decode(): one.partition() for one in records}
        assert found == {one.rae: partition_of(one.rae, PARTITIONS) for one in self.publishers}
        assert read_all(self.kafka.bootstrap_servers, topics.info_dead, 1) == []


async def scenario(lab: Lab, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        for proxy in lab.proxies.values():
            await stack.enter_async_context(proxy)
        topics = await asyncio.to_thread(lab.topics)
        bridge = lab.bridge(topics, folder)
        bridge.start()
        stack.push_async_callback(asyncio.to_thread, bridge.stop)
        rage = chaos.Chaos(lab.victims(bridge), seed=SEED)
        sending = [asyncio.create_task(publisher.run()) for publisher in lab.publishers]
        raging = asyncio.create_task(rage.rage(CHAOS_S))
        try:
            await lab.commit_until(raging)
            raging.result()
            await lab.all_durable(sending)
            await asyncio.to_thread(lab.check, topics)
        finally:
            rows = sum(len(publisher.rows) for publisher in lab.publishers)
            print(f"{rows} rows, {len(rage.history)} faults, {rage}")


def test_every_row_reaches_kafka_in_order_whatever_dies(tmp_path) -> None:
    ports = free_ports(3)
    with public_folder() as folder, start_mosquitto(folder) as mosquitto:
        server = ProxiedKafka(folder / "kafka", proxy_port=ports[2])
        with start(server) as process:
            lab = Lab(mosquitto, KafkaService(process, server), server, ports)
            asyncio.run(scenario(lab, tmp_path))
