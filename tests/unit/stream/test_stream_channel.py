"""The channel of one worker life: words keep their order, and none is lost at its end."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream import channel
from dmpd.stream.channel import EMIT_BYTES_MAX, ChannelClosedError, ParentEnd, ReleasedTo, StateChanged, WorkerEnd, pair


@pytest.fixture
def ends():
    ours, theirs = pair()
    yield ParentEnd(ours), WorkerEnd(theirs), theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("unread", [0, 1, 3])
def test_what_a_worker_said_is_read_to_the_end_whatever_it_left_unread(ends, unread):
    """Linux reports the reset of an end with unread words before the words that it sent."""
    parent, worker, its_socket = ends
    for _ in range(unread):
        assert parent.publish(64, 5, 7)
    worker.state("ready")
    worker.released_to(8, 1)
    its_socket.close()
    assert parent.receive() == StateChanged("ready", "")
    assert parent.receive() == ReleasedTo(8, 1)
    with pytest.raises(ChannelClosedError):
        parent.receive()


def test_the_newest_position_counts_and_none_is_waited_for_twice(ends):
    parent, worker, _ = ends
    assert worker.published(0, wait=False) == 0
    for position in (64, 128, 96):
        assert parent.publish(position, position, 0)
    assert worker.published(0, wait=True) == 128
    assert worker.records_max == 96
    assert worker.published(128, wait=False) == 128


def test_a_full_queue_is_no_end_and_says_so(ends):
    parent, worker, _ = ends
    count = 0
    while parent.publish(count, 1, 0):
        count += 1
    assert worker.published(0, wait=True) == count - 1
    assert parent.publish(count, 1, 0)


def test_the_parents_end_ends_the_worker(ends):
    parent, worker, _ = ends
    worker.state("ready")
    parent.close()
    with pytest.raises(ChannelClosedError):
        worker.published(0, wait=True)
    with pytest.raises(ChannelClosedError):
        worker.state("ready")


def test_the_largest_record_that_may_be_emitted_fits(ends):
    parent, worker, _ = ends
    worker.emit("t", b"k", bytes(EMIT_BYTES_MAX - 1))
    message = parent.receive()
    assert message is not None
    assert len(message.value) == EMIT_BYTES_MAX - 1
    with pytest.raises(ValueError, match="at most"):
        worker.emit("t", b"k", bytes(EMIT_BYTES_MAX))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_release_is_the_message_that_it_stands_for(frame, nth):
    """It is packed by hand on one side and read by hand on the other: in between it is what ``Upward`` says."""
    ours, theirs = pair()
    try:
        WorkerEnd(theirs).released_to(frame, nth)
        word = ours.recv(100)
        assert channel._DECODER.decode(word) == ReleasedTo(frame, nth)
        theirs.send(word)
        theirs.send(channel._ENCODER.encode(ReleasedTo(frame, nth)))
        parent = ParentEnd(ours)
        assert (parent.receive(), parent.receive()) == (ReleasedTo(frame, nth), ReleasedTo(frame, nth))
    finally:
        ours.close()
        theirs.close()


def test_nonsense_as_long_as_a_release_is_none(ends):
    parent, _, its_socket = ends
    its_socket.send(channel._RELEASED.pack(channel._RELEASED_TAG, 8, 0, 1))
    with pytest.raises(msgspec.DecodeError):
        parent.receive()
