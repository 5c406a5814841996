"""One partition with a real ring, fork server and workers, and no Kafka: records are placed by hand."""

import json
import sys
import time
from contextlib import contextmanager

from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer
from dmpd.runtime.settings import LogSettings
from dmpd.stream.fork_server import ForkServer, Hello
from dmpd.stream.frames import Frame
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.workers import Workers, wait

SETTINGS = StreamSettings(
    ring_bytes=1 << 16,
    max_record_bytes=4096,
    batch_records_max=40,
    worker_backoff_first_s=0.001,
    worker_backoff_max_s=0.002,
)


@contextmanager
def fork_server(folder, handler="tests.support.stream_harm:make", **options):
    """A started fork server whose handlers get ``folder`` and ``options``."""
    argument = json.dumps({"folder": str(folder)} | options).encode()
    server = ForkServer(Hello(handler, argument, sys.path, LogSettings(level="error"), "test"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Rig:
    """Tends one partition until something holds."""

    def __init__(self, server, settings=SETTINGS, number=0):
        self.kafka = MemoryKafka()
        self.kafka.create_topic("d")
        self.outgoing = OutgoingRecords(MemoryProducer(self.kafka), topic="t", dead_letter_topic="d")
        self.workers = Workers(server, settings, self.outgoing)
        self.partition = Partition(number, epoch=1, next_offset=0, settings=settings)
        self.offset = 0

    @property
    def life(self):
        return self.partition.life

    @property
    def dead_letters(self):
        """Headers of each, by offset."""
        headers = [dict(record.headers) for record in self.kafka.topics["d"][0]]
        return {int(one["dmpd-offset"]): one for one in headers}

    def place(self, values):
        """Put values into the ring as one frame; returns how many were taken."""
        offsets = range(self.offset, self.offset + len(values))
        before = self.partition.ledger.placed_records
        self.partition.place(Frame(offsets, [0] * len(values), [b"k"] * len(values), list(values), None))
        self.partition.flow.resumed(time.monotonic())
        placed = self.partition.ledger.placed_records - before
        self.offset += placed
        return placed

    def turn(self, wait_s=0.005):
        now_s = time.monotonic()
        self.workers.listen({self.partition.number: self.partition})
        self.workers.tend([self.partition], now_s)
        self.outgoing.pump(now_s)
        self.partition.free()
        wait([self.partition], wait_s)

    def tend_until(self, holds, timeout_s=60.0):
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, f"{holds} does not hold: {self.partition.picture(committed=0)}"
            self.turn()

    def tend_until_done(self):
        self.tend_until(lambda: self.partition.ledger.is_complete)

    def end(self):
        self.workers.end([self.partition], 5)
        self.partition.close()
