"""The ring against a deque: whatever is written, freed and read, in any order, the same frames come out."""

import fcntl
import mmap
import os
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dmpd.stream.ring import RingConsumer, RingCorruptedError, RingProducer, create_memory, frame_bytes

CAPACITY = 4096


class RingMachine(RuleBasedStateMachine):
    """Frames are published, read again from any unfreed one (as a second worker does), and freed from the oldest."""

    @initialize()
    def make(self):
        self.fd = create_memory(CAPACITY)
        self.producer = RingProducer(self.fd)
        self.consumer = RingConsumer(self.fd)
        self.model = deque()  # (position, payload)
        self.count = 0

    @rule(size=st.integers(0, CAPACITY // 2 - 16))
    def write(self, size):
        self.count += 1
        payload = self.count.to_bytes(4, "little") * (size // 4) + bytes(size % 4)
        position = self.producer.write(payload)
        if position is None:
            assert self.model, "an empty ring takes every payload up to payload_bytes_max"
            assert self.producer.used_bytes + 2 * frame_bytes(size) > CAPACITY
        else:
            self.model.append((position, payload))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read_from_any(self, data):
        start = data.draw(st.integers(0, len(self.model) - 1))
        at = self.producer.freed if start == 0 else self.model[start][0]
        for position, payload in list(self.model)[start:]:
            view, found, at = self.consumer.read(at)
            assert (found, bytes(view)) == (position, payload)
        assert at == self.producer.published

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def free(self, data):
        for _ in range(data.draw(st.integers(1, len(self.model)))):
            self.model.popleft()
        self.producer.free_to(self.model[0][0] if self.model else self.producer.published)

    @invariant()
    def positions_hold(self):
        if hasattr(self, "producer"):
            assert 0 <= self.producer.used_bytes <= CAPACITY
            assert self.producer.published % 8 == 0

    def teardown(self):
        if hasattr(self, "producer"):
            self.producer.close()
            self.consumer.close()
            os.close(self.fd)


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(0, CAPACITY // 2 - 16), st.integers(1, 400), st.integers(0, 63))
@settings(max_examples=300, deadline=None)
def test_every_flipped_bit_of_a_header_or_a_padding_is_noticed(before_bytes, size, bit):
    """At any position, so also of an earlier lap: the check ties length and position together."""
    fd = create_memory(CAPACITY)
    producer, consumer = RingProducer(fd), RingConsumer(fd)
    try:
        headers = []
        for payload_bytes in [before_bytes, *[size] * 30]:
            at = producer.published
            position = producer.write(bytes(payload_bytes))
            if position is None:
                producer.free_to(producer.published)
                continue
            headers += [at, position] if position != at else [position]  # a padding lies at the old end
        for position in headers[-8:]:
            index = position % CAPACITY + bit // 8
            [byte] = os.pread(fd, 1, index)
            os.pwrite(fd, bytes([byte ^ 1 << bit % 8]), index)
            with pytest.raises(RingCorruptedError):
                consumer.read(position)
            os.pwrite(fd, bytes([byte]), index)
            consumer.read(position)
    finally:
        producer.close()
        consumer.close()
        os.close(fd)


@given(st.integers(0, CAPACITY // 8), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_what_an_earlier_lap_left_is_not_taken_for_a_frame(size, laps):
    """A position that runs ahead by whole laps finds headers that are in order but for where they stand."""
    fd = create_memory(CAPACITY)
    producer, consumer = RingProducer(fd), RingConsumer(fd)
    try:
        while (position := producer.write(bytes(size))) is not None:
            consumer.read(position)
            with pytest.raises(RingCorruptedError):
                consumer.read(position + laps * CAPACITY)
    finally:
        producer.close()
        consumer.close()
        os.close(fd)


def test_a_view_is_the_memory_itself_until_it_is_let_go():
    """No copy: what is written over a freed frame shows in an old view, and a ring with views out cannot be closed."""
    fd = create_memory(CAPACITY)
    producer, consumer = RingProducer(fd), RingConsumer(fd)
    position = producer.write(b"a" * 24)
    view, _, _ = consumer.read(position)
    os.pwrite(fd, b"b", position % CAPACITY + 8)
    assert bytes(view[:2]) == b"ba"
    assert view.readonly
    with pytest.raises(BufferError):
        consumer.close()
    view.release()
    producer.close()
    os.close(fd)


@given(st.integers(0, CAPACITY // 8 - 1), st.binary(min_size=8, max_size=8))
@settings(max_examples=200, deadline=None)
def test_damage_in_a_header_is_noticed(slot, garbage):
    """No bytes of an earlier lap, or of nobody, are taken for a frame."""
    fd = create_memory(CAPACITY)
    producer, consumer = RingProducer(fd), RingConsumer(fd)
    try:
        positions = []
        while (position := producer.write(bytes(24))) is not None:
            positions.append(position)
        index = slot % len(positions)
        before = os.pread(fd, 8, positions[index])
        os.pwrite(fd, garbage, positions[index])
        if garbage == before:
            return
        with pytest.raises(RingCorruptedError):
            consumer.read(positions[index])
    finally:
        producer.close()
        consumer.close()
        os.close(fd)


@pytest.mark.parametrize("change", [-1, 1])
def test_who_holds_the_memory_cannot_change_its_size(change):
    """A worker that shrank it would end the parent by SIGBUS."""
    fd = create_memory(CAPACITY)
    try:
        size_bytes = os.fstat(fd).st_size
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size_bytes + change * mmap.PAGESIZE)
        with pytest.raises(PermissionError):  # nor take the seals off, or add one against the parent
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert os.fstat(fd).st_size == size_bytes
    finally:
        os.close(fd)
