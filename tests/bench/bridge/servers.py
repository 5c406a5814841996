"""A real Mosquitto and a real Kafka for the benchmarks of the bridge, and the bridge between them."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dmpd.bridge.settings import BridgeSettings
from dmpd.runtime.health import fetch
from dmpd.runtime.settings import MqttSettings, TopicSettings
from tests.bench.kafka import BenchKafka
from tests.support.bridge_main import Sections
from tests.support.bridge_process import BridgeProcess
from tests.support.services import KafkaService, MosquittoService, public_folder, start_kafka, start_mosquitto

BARE = ("svc-canary", "svc-access")
"""The principals of counting subscribers; the bench's rules let them read what the bridge reads."""
PARTITIONS = 12


class Platform:
    """Both servers, running, and the folders of what is started beside them."""

    def __init__(self, mosquitto: MosquittoService, kafka: KafkaService, folder: Path) -> None:
        self.mosquitto = mosquitto
        self.kafka = kafka
        self.folder = folder

    def settings(self, principal: str) -> MqttSettings:
        return self.mosquitto.settings(principal)

    def topics(self) -> TopicSettings:
        """Fresh topics."""
        names = {name: self.kafka.create_topic(partitions=PARTITIONS) for name in ("info", "rsp", "cmd")}
        return TopicSettings(**names, info_dead=self.kafka.create_topic(), partitions=PARTITIONS)

    @contextmanager
    def bridge(self, topics: TopicSettings) -> "Iterator[Bridge]":
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            bridge = Bridge(self, topics, Path(folder))
            bridge.process.start()
            try:
                yield bridge
            finally:
                bridge.process.stop()


class Bridge:
    """One bridge process with default settings, and what its metrics say."""

    def __init__(self, platform: Platform, topics: TopicSettings, folder: Path) -> None:
        self._health = f"unix:{folder}/health.sock"
        sections = Sections(
            bridge=BridgeSettings(health_bind=self._health),
            kafka=platform.kafka.settings,
            mqtt=platform.settings("svc-bridge"),
            topics=topics,
        )
        self.process = BridgeProcess(sections, folder / "bridge.log")

    def metric(self, name: str) -> float:
        """The sum over the metric's labels; 0 while the bridge does not answer."""
        try:
            text = fetch(self._health, "/metrics")[1].decode()
        except OSError:
            return 0.0
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(value) for _, value in lines)

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@contextmanager
def running() -> Iterator[Platform]:
    """As in the lab, but Mosquitto does not save each second: with a queue of gigabytes it would do nothing else."""
    rules = "".join(f"\nuser {user}\ntopic read dmp/v1/+/+/info\n" for user in BARE)
    with (
        public_folder() as folder,
        start_kafka(folder, BenchKafka) as kafka,
        start_mosquitto(folder, rules=rules, autosave_interval="1800") as mosquitto,
    ):
        yield Platform(mosquitto, kafka, folder)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not in {timeout_s:g} s: {what}")
        time.sleep(0.05)
