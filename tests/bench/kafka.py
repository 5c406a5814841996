"""The Kafka of the benchmarks."""

from dmpd.lab.kafka import Kafka


class BenchKafka(Kafka):
    """With the JVM's own compilers and collector, as the peers' harness has it: the lab's save memory, at a cost."""

    def command(self) -> list[str]:
        return [word if word != "-Xmx512m" else "-Xmx768m" for word in super().command() if not word.startswith("-XX:")]
