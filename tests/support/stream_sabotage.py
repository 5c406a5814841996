"""Faults of the Kafka client that it does not have on demand: put between the stream and it, steered by files.

While a file ``silence`` exists the client does not fetch partition 0, and nobody is told; ``silent`` shows that it has
begun. What it holds is the cure that helps: ``seek``, ``assign`` or ``none``.
"""

from confluent_kafka import TopicPartition

from dmpd.stream.consumer import StreamConsumer


def install(folder):
    silence = folder / "silence"
    real_poll, real_unpause_at, real_start_at = StreamConsumer.poll, StreamConsumer.unpause_at, StreamConsumer.start_at

    def poll(self, timeout_s):
        if silence.exists():
            self._client.pause([TopicPartition(self._topic, 0)])
            (folder / "silent").touch()
        return real_poll(self, timeout_s)

    def cured_by(*cures):
        if silence.exists() and silence.read_text() in cures:
            silence.unlink()

    def unpause_at(self, partition, offset):
        cured_by("seek")
        real_unpause_at(self, partition, offset)

    def start_at(self, partition, offset):
        cured_by("seek", "assign")
        real_start_at(self, partition, offset)

    StreamConsumer.poll, StreamConsumer.unpause_at, StreamConsumer.start_at = poll, unpause_at, start_at
