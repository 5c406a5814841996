"""The Kafka of the benchmarks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmpd.lab.kafka import Kafka
from dmpd.lab.server import free_ports
from tests.support.services import KafkaService, start


class BenchKafka(Kafka):
    """With the JVM's own compilers and collector, as the peers' harness has it: the lab's save memory, at a cost."""

    def command(self) -> list[str]:
        return [word if word != "-Xmx512m" else "-Xmx768m" for word in super().command() if not word.startswith("-XX:")]


@contextmanager
def start_bench_kafka(folder: Path) -> Iterator[KafkaService]:
    port, controller_port = free_ports(2)
    server = BenchKafka(folder / "kafka", port=port, controller_port=controller_port)
    with start(server) as process:
        yield KafkaService(process, server)
