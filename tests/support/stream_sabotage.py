"""Faults of the Kafka client that it does not have on demand: put between the stream and it, steered by files.

While a file ``silence`` exists the client does not fetch partition 0, and nobody is told; ``silent`` shows that it has
begun. What it holds is the cure that helps: ``seek``, ``assign`` or ``none``.

``stand``: the loop never comes back from a call of C, in which Python's signal handlers do not run; ``stands`` shows
that it is there. ``fatal``: the client gets a fatal error, once; the file goes.
"""

import ctypes

from confluent_kafka import TopicPartition

from dmpd.stream.consumer import StreamConsumer
from tests.support.mock_cluster import plant_fatal_error


def install(folder):
    silence = folder / "silence"
    real_poll, real_unpause_at, real_start_at = StreamConsumer.poll, StreamConsumer.unpause_at, StreamConsumer.start_at

    def poll(self, timeout_s):
        if (folder / "stand").exists():
            (folder / "stands").touch()
            stand_still()
        if (folder / "fatal").exists():
            (folder / "fatal").unlink()
            plant_fatal_error(self._client)
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


def stand_still():
    """Block for ever: a mutex is taken twice."""
    mutex = ctypes.create_string_buffer(128)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
