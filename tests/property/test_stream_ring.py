"""The ring against a deque: whatever is written, freed and read, in any order, the same frames come out."""

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
