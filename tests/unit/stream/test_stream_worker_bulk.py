"""A worker whose handler wants wide batches lets bulk come in; what comes alone does not wait."""

import contextlib
import os
import threading
import time

import pytest

from dmpd.stream import frames, ring, worker
from dmpd.stream.channel import ChannelClosedError, Invalid, ParentEnd, WorkerEnd, pair
from dmpd.stream.frames import Frame, Position

BULK = worker._BULK_BYTES


@pytest.fixture
def ends():
    ours, theirs = pair()
    ours.setblocking(False)
    yield ParentEnd(ours), WorkerEnd(theirs)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("published", "wanted"), [(BULK - 8, 1 << 20), (5 * BULK, 0), (1 << 20, 1 << 20)])
def test_it_does_not_wait(ends, published, wanted):
    """For less than bulk, for a handler that does not care, with enough already: the channel is not even asked."""
    _, end = ends
    end.published_within = None
    assert worker._while_bulk_comes(end, published, 0, wanted, 1.0) == published


def test_it_waits_until_enough_is_there(ends):
    parent, end = ends

    def publish():
        for step in range(2, 6):
            time.sleep(0.01)
            assert parent.publish(step * BULK, 1000, 0)

    thread = threading.Thread(target=publish)
    thread.start()
    found = worker._while_bulk_comes(end, BULK, 0, 4 * BULK, 30.0)
    thread.join()
    assert found >= 4 * BULK


def test_it_waits_no_longer_than_nothing_comes(ends):
    _, end = ends
    began_s = time.monotonic()
    assert worker._while_bulk_comes(end, 2 * BULK, 0, 1 << 30, 0.0) == 2 * BULK
    assert time.monotonic() - began_s >= worker._BULK_WAIT_MIN_S / worker._BULK_PAUSES


def test_it_waits_no_longer_than_its_bound_however_much_comes(ends, monkeypatch):
    parent, end = ends
    monkeypatch.setattr(worker, "_BULK_WAIT_MAX_S", 0.0)
    assert parent.publish(9 * BULK, 1000, 0)
    assert worker._while_bulk_comes(end, 2 * BULK, 0, 1 << 30, 0.0) == 2 * BULK


def test_it_waits_longer_where_more_is_known_to_come(ends, monkeypatch):
    monkeypatch.setattr(worker, "_BULK_COMING_WAIT_MIN_S", 60.0)
    monkeypatch.setattr(worker, "_BULK_WAIT_MAX_S", 60.0)
    parent, end = ends
    assert parent.publish(2 * BULK, 1000, 5)
    assert end.published(0, wait=True) == 2 * BULK
    rest = threading.Timer(3 * worker._BULK_PAUSE_MAX_S, parent.publish, (4 * BULK, 1000, 1))
    rest.start()
    assert worker._while_bulk_comes(end, 2 * BULK, 0, 4 * BULK, 0.0) == 4 * BULK
    rest.join()


def test_it_waits_no_longer_once_nothing_more_is_to_come(ends, monkeypatch):
    """A full ring, a pause, a drain: the parent says so."""
    monkeypatch.setattr(worker, "_BULK_COMING_WAIT_MIN_S", 60.0)
    monkeypatch.setattr(worker, "_BULK_WAIT_MAX_S", 60.0)
    parent, end = ends
    assert parent.publish(2 * BULK, 1000, 5)
    assert end.published(0, wait=True) == 2 * BULK
    over = threading.Timer(0.05, parent.publish, (2 * BULK, 1000, 0))
    over.start()
    began_s = time.monotonic()
    assert worker._while_bulk_comes(end, 2 * BULK, 0, 4 * BULK, 0.0) == 2 * BULK
    assert time.monotonic() - began_s < 30
    over.join()


@pytest.fixture
def filled():
    """A ring of eight frames of one record each, of 1,000 bytes, and where it is published to."""
    fd = ring.create_memory(1 << 16)
    producer = ring.RingProducer(fd)
    for offset in range(8):
        producer.write(frames.encode(Frame([offset], [0], [b"k"], [b"x" * 1000], None)))
    yield worker.BatchReader(ring.RingConsumer(fd), Position(0, 0), worker.Bounds(100, 1 << 15)), producer.published
    os.close(fd)


@pytest.mark.parametrize(("bytes_max", "batches"), [(None, [8]), (1 << 20, [8]), (2500, [2, 2, 2, 2]), (1, [1] * 8)])
def test_a_batch_is_bounded_by_bytes(filled, bytes_max, batches):
    """Frames are whole, and one comes whatever its size."""
    reader, published = filled
    found = []
    while reader.position.frame < published:
        found.append(sum(len(span.records) for span in reader.take(published, None, bytes_max)))
    assert found == batches


class Wanting:
    """Wants two records at a time, and when it has had four of them, as much as there is."""

    batch_bytes_wanted = 2500

    def __init__(self):
        self.batches = []

    def handle(self, records, output):
        self.batches.append([record.offset for record in records])
        if len(self.batches) == 2:
            self.batch_bytes_wanted = 1 << 30

    def close(self):
        pass


def work(handler, end, reader):
    with contextlib.suppress(ChannelClosedError):
        worker._work(handler, end, reader)


def batches(handler, filled, count):
    """What ``handler`` was given until it had ``count`` batches."""
    reader, published = filled
    ours, theirs = pair()
    ours.setblocking(False)
    parent = ParentEnd(ours)
    assert parent.publish(published, 1000, 0)
    thread = threading.Thread(target=work, args=(handler, WorkerEnd(theirs), reader))
    thread.start()
    deadline_s = time.monotonic() + 60
    while len(handler.batches) < count and time.monotonic() < deadline_s:
        time.sleep(0.01)
    ours.close()
    thread.join(60)
    theirs.close()
    return handler.batches


def test_a_handler_is_given_no_more_than_it_wants_at_the_time(filled):
    """But for the first, which is narrow."""
    assert batches(Wanting(), filled, 3) == [[0], [1, 2], [3, 4, 5, 6, 7]]


@pytest.fixture
def lone():
    """A ring that a reader reads, and its producer."""
    fd = ring.create_memory(1 << 16)
    yield ring.RingProducer(fd), worker.BatchReader(ring.RingConsumer(fd), Position(0, 0), worker.Bounds(100, 1 << 15))
    os.close(fd)


def frame_of(*offsets, value=b"x", headers=None, skipped=False):
    count = len(offsets)
    return frames.encode(Frame(list(offsets), [0] * count, [b"k"] * count, [value] * count, headers, skipped))


def test_a_record_that_is_alone_is_taken_whole_and_everything_else_is_left(lone):
    producer, reader = lone
    producer.write(frame_of(0))
    assert [record.offset for record in reader.take_alone(producer.published)] == [0]
    assert reader.position == (producer.published, 0)
    for left in (frame_of(1, 2), frame_of(3, value=b"x" * (worker._ALONE_BYTES + 1))):
        before = reader.position
        producer.write(left)
        assert reader.take_alone(producer.published) is None
        assert reader.position == before
        reader.take(producer.published)
    producer.write(frame_of(4))
    producer.write(frame_of(5))
    assert reader.take_alone(producer.published) is None
    assert [span.records[0].offset for span in reader.take(producer.published)] == [4, 5]
    producer.write(frame_of(6, skipped=True))
    assert reader.take_alone(producer.published) == []
    assert reader.position == (producer.published, 0)


def test_the_rest_of_a_frame_is_no_lone_record(lone):
    producer, reader = lone
    producer.write(frame_of(0, 1))
    reader.take(producer.published, 1)
    assert reader.take_alone(producer.published) is None
    assert [record.offset for span in reader.take(producer.published) for record in span.records] == [1]


def test_lone_records_are_read_all_around_the_ring(lone):
    producer, reader = lone
    for offset in range(500):
        assert producer.write(frame_of(offset, value=b"x" * (offset * 37 % 900), headers=[[("h", b"1")]])) is not None
        found = reader.take_alone(producer.published)
        if found is None:  # behind a padding
            [span] = reader.take(producer.published)
            found = span.records
        assert [(one.offset, one.headers) for one in found] == [(offset, [("h", b"1")])]
        producer.free_to(reader.position.frame)


def test_a_verdict_names_the_lone_record(ends):
    parent, end = ends
    output = worker._ChannelOutput(end)
    for offset in (3, 4):
        [record] = frames.records(frame_of(offset))
        output.begin([worker._Span(8 * offset, 0, [record])])
        output.invalid(record, "bad")
        assert parent.receive() == Invalid(8 * offset, 0, "bad", "")
    with pytest.raises(ValueError, match="offset 3 is not of this batch"):
        output.invalid(frames.records(frame_of(3))[0], "bad")
