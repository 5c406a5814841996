"""A worker whose handler wants wide batches lets bulk come in; what comes alone does not wait."""

import threading
import time

import pytest

from dmpd.stream import worker
from dmpd.stream.channel import ParentEnd, WorkerEnd, pair

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
            assert parent.publish(step * BULK, 1000)

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
    assert parent.publish(9 * BULK, 1000)
    assert worker._while_bulk_comes(end, 2 * BULK, 0, 1 << 30, 0.0) == 2 * BULK
