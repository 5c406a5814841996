"""A worker whose handler wants wide batches lets bulk come in; what comes alone does not wait."""

import contextlib
import os
import threading
import time

import pytest

from dmpd.stream import frames, ring, worker
from dmpd.stream.channel import ChannelClosedError, ParentEnd, WorkerEnd, pair
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
