"""Of which records a death is said to be."""

from types import SimpleNamespace

from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer
from dmpd.stream.frames import Frame
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.workers import Workers

SETTINGS = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)


def test_a_worker_that_was_told_to_be_narrower_may_have_died_in_a_wider_batch():
    """What it was told last reaches it behind the batch it is in: a death of five is none of one alone."""
    outgoing = OutgoingRecords(MemoryProducer(MemoryKafka()), topic="t", dead_letter_topic="d")
    partition = Partition(0, epoch=1, next_offset=0, settings=SETTINGS)
    partition.place(Frame(range(8), [0] * 8, [b"k"] * 8, [b"v"] * 8, None))
    life = SimpleNamespace(accuses=True, told=partition.ring.published, told_records_max=1, widest_told=5)
    Workers(None, SETTINGS, outgoing)._suspect(partition, life)
    assert partition.suspicion.width == 5 // 2
    partition.close()
