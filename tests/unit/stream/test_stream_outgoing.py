"""What is on its way holds the frontier until Kafka has it, whatever Kafka refuses meanwhile."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from dmpd.runtime.kafka import ProducerQueueFullError
from dmpd.stream.channel import Emit
from dmpd.stream.frames import Frame, Position
from dmpd.stream.outgoing import BACKLOG_MAX, OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings

SETTINGS = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)


class ScriptedProducer:
    """Takes records until ``room`` is used up; answers them when ``answer`` is called, inside ``poll``."""

    fatal = None

    def __init__(self):
        self.room = 1000
        self.taken = []
        self.too_large = None
        self._due = []

    def produce(self, topic, *, key, value, headers=(), partition=None, on_delivery):
        if len(self.taken) >= self.room:
            raise ProducerQueueFullError
        if self.too_large is not None and len(value) > self.too_large:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.taken.append((topic, key, value, dict(headers), on_delivery))

    def answer(self, refusal=None):
        topic, key, value, headers, on_delivery = self.taken.pop(0)
        self._due.append((on_delivery, refusal))
        return topic, key, value, headers

    def poll(self, timeout_s):
        due, self._due = self._due, []
        for on_delivery, refusal in due:
            on_delivery(refusal)
        return len(due)


@pytest.fixture
def producer():
    return ScriptedProducer()


@pytest.fixture
def outgoing(producer):
    return OutgoingRecords(producer, topic="t", dead_letter_topic="d")


@pytest.fixture
def partition():
    partition = Partition(0, epoch=1, next_offset=10, settings=SETTINGS)
    assert partition.place(Frame([10, 11, 12], [0] * 3, [b"k"] * 3, [b"a", b"b", b"c"], None)) == ()
    yield partition
    if not partition.closed:
        partition.close()


def release_all(partition):
    partition.ledger.release(Position(partition.ring.published, 0))


def test_a_dead_letter_holds_the_frontier_and_the_space_until_delivered(outgoing, producer, partition):
    outgoing.give_up(partition, Position(0, 1), reason="bad", detail="")
    release_all(partition)
    partition.free()
    assert partition.candidate().offset == 11
    assert partition.ring.used_bytes > 0
    outgoing.pump(0.0)
    assert partition.candidate().offset == 11
    assert producer.answer()[:3] == ("d", b"k", b"b")
    outgoing.pump(0.0)
    assert partition.candidate().offset == 13
    assert partition.free() == 3 - 1
    assert partition.ring.used_bytes == 0
    assert outgoing.backlog == 0


def test_a_record_judged_twice_is_produced_once(outgoing, producer, partition):
    """The worker died between the verdict and the release; its successor judges again."""
    for _ in range(2):
        outgoing.give_up(partition, Position(0, 1), reason="bad", detail="")
        outgoing.pump(0.0)
    assert len(producer.taken) == 1


def test_a_full_queue_is_waited_for_and_needs_no_copy(outgoing, producer, partition):
    producer.room = 0
    outgoing.give_up(partition, Position(0, 0), reason="bad", detail="")
    release_all(partition)
    outgoing.pump(0.0)
    assert partition.candidate().offset == 10
    producer.room = 1
    outgoing.pump(0.0)
    assert producer.answer()[2] == b"a"
    outgoing.pump(0.0)
    assert partition.candidate().offset == 13


@pytest.mark.parametrize("by_client", [True, False])
def test_too_large_for_its_topic_goes_without_its_value(outgoing, producer, partition, by_client):
    producer.too_large = 0 if by_client else None
    outgoing.give_up(partition, Position(0, 0), reason="bad", detail="")
    outgoing.pump(0.0)
    if not by_client:
        producer.answer("Broker: Message size too large")
    outgoing.pump(0.0)
    outgoing.pump(0.0)
    _, key, value, headers = producer.answer()
    assert (key, value, headers["dmpd-truncated"]) == (b"k", b"", b"1")


def test_refused_for_anything_but_its_size_it_keeps_its_value(outgoing, producer, partition):
    """A topic that is not there yet, a right that is missing: it can still be replayed."""
    outgoing.give_up(partition, Position(0, 0), reason="bad", detail="")
    for turn in range(3):
        outgoing.pump(10.0 * turn)
        producer.answer("Broker: Topic authorization failed")
        outgoing.pump(10.0 * turn)
    outgoing.pump(100.0)
    _, key, value, headers = producer.answer()
    assert (key, value) == (b"k", b"a")
    assert "dmpd-truncated" not in headers


def test_a_refusal_is_never_the_end(outgoing, producer, partition):
    outgoing.emit(partition, Emit("cmd", b"k", b"v"))
    release_all(partition)
    for turn in range(3):
        outgoing.pump(10.0 * turn)
        producer.answer("no such topic")
        outgoing.pump(10.0 * turn)
        assert partition.candidate().offset == 10
    outgoing.pump(100.0)
    assert producer.answer()[:3] == ("cmd", b"k", b"v")
    outgoing.pump(100.0)
    assert partition.candidate().offset == 13


def test_what_is_refused_again_waits_a_second_and_lets_others_by(outgoing, producer, partition):
    """The first time at once, without its value; a topic that takes nothing is not asked 200 times a second."""
    outgoing.emit(partition, Emit("missing", b"k", b"v"))
    for now_s in (5.0, 5.1):
        outgoing.pump(now_s)
        assert producer.answer("no such topic")[0] == "missing"
        producer.poll(0)
    outgoing.emit(partition, Emit("cmd", b"k", b"v"))
    outgoing.pump(6.0)
    assert [topic for topic, *_ in producer.taken] == ["cmd"]
    outgoing.pump(6.1)
    assert [topic for topic, *_ in producer.taken] == ["cmd", "missing"]


def test_what_belongs_to_a_partition_that_is_gone_is_dropped(outgoing, producer, partition):
    outgoing.give_up(partition, Position(0, 0), reason="bad", detail="")
    partition.close()
    outgoing.pump(0.0)
    assert producer.taken == []
    assert outgoing.backlog == 0


def test_an_oversized_record_keeps_its_place(outgoing, producer):
    partition = Partition(0, epoch=1, next_offset=10, settings=SETTINGS)
    values = [b"a", b"x" * 5000, b"c"]
    [oversized] = partition.place(Frame([10, 11, 12], [0] * 3, [b"k"] * 3, values, None))
    outgoing.give_up_oversized(partition, oversized, limit_bytes=4096)
    release_all(partition)
    assert partition.candidate().offset == 11
    assert partition.used_bytes > 5000
    outgoing.pump(0.0)
    _, _, value, headers = producer.answer()
    assert (value, headers["dmpd-reason"], headers["dmpd-by"]) == (values[1], b"oversized", b"stream")
    outgoing.pump(0.0)
    assert partition.candidate().offset == 13
    partition.free()
    assert partition.used_bytes == 0
    partition.close()


def test_it_is_full_beyond_its_bound_and_waits_for_reports(outgoing, producer, partition):
    for _ in range(BACKLOG_MAX):
        outgoing.emit(partition, Emit("t", b"k", b"v"))
    assert not outgoing.is_full
    outgoing.emit(partition, Emit("t", b"k", b"v"))
    assert outgoing.is_full
    outgoing.pump(0.0)
    producer.answer()
    outgoing.wait(1.0)
    assert not outgoing.is_full
