"""The ledger against a set: what may be committed is the oldest record that is not acknowledged, at every moment."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dmpd.stream.frames import Position
from dmpd.stream.ledger import Ledger, PositionError


class LedgerMachine(RuleBasedStateMachine):
    """The model keeps each record as (position, offset) and two sets: handled, held."""

    @initialize(start=st.integers(0, 1000))
    def make(self, start):
        self.ledger = Ledger(start)
        self.start = start
        self.offset = start
        self.end = 0
        self.records = []
        self.handled = 0
        self.holds = {}  # ticket -> index of the record it holds, or of the first not released then

    @rule(count=st.integers(1, 5), gap=st.integers(0, 3), padding=st.integers(0, 2))
    def place(self, count, gap, padding):
        position = self.end + 8 * padding
        offsets = [self.offset + gap + n for n in range(count)]
        self.offset = offsets[-1] + 1
        self.end = position + 8 * count
        self.ledger.place(position, self.end, offsets)
        self.records += [(Position(position, n), offset) for n, offset in enumerate(offsets)]

    @rule(data=st.data(), by_frame_end=st.booleans())
    def release(self, data, by_frame_end):
        to = data.draw(st.integers(self.handled, len(self.records)))
        if to == len(self.records):
            position = Position(self.end, 0)
        else:
            position = self.records[to][0]
            if by_frame_end and position.nth == 0 and to > self.handled:
                position = self.end_of(to - 1)
        self.ledger.release(position)
        self.handled = to

    def end_of(self, index):
        """Where the frame of that record ends, which is before the next one's padding."""
        frame = self.records[index][0].frame
        return Position(frame + 8 * sum(position.frame == frame for position, _ in self.records), 0)

    @precondition(lambda self: self.handled < len(self.records))
    @rule(data=st.data())
    def judge(self, data):
        index = data.draw(st.integers(self.handled, len(self.records) - 1))
        self.holds[self.ledger.hold(self.records[index][0])] = index

    @rule()
    def emit(self):
        self.holds[self.ledger.hold()] = self.handled

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def deliver(self, data):
        ticket = data.draw(st.sampled_from(sorted(self.holds)))
        del self.holds[ticket]
        self.ledger.end_hold(ticket)

    @precondition(lambda self: self.handled)
    @rule()
    def nobody_goes_back(self):
        with pytest.raises(PositionError):
            self.ledger.hold(self.records[self.handled - 1][0])

    @precondition(lambda self: self.handled < len(self.records))
    @rule(data=st.data(), byte=st.integers(1, 7))
    def nobody_releases_to_the_middle_of_a_frame(self, data, byte):
        frame = self.records[data.draw(st.integers(self.handled, len(self.records) - 1))][0].frame
        with pytest.raises(PositionError):
            self.ledger.release(Position(frame + byte, 0))

    @invariant()
    def what_may_be_committed_is_right(self):
        if not hasattr(self, "ledger"):
            return
        passed = min([self.handled, *self.holds.values()])
        assert self.ledger.next_offset == (self.records[passed - 1][1] + 1 if passed else self.start)
        assert self.ledger.passed_records == passed
        assert self.ledger.released_records == self.handled
        for index in range(passed, len(self.records)):
            assert self.ledger.ordinal_at(self.records[index][0]) == index
        left = [
            Position(one.first.frame, one.first.nth + n) for one in self.ledger.unreleased() for n in range(one.records)
        ]
        assert left == [position for position, _ in self.records[self.handled :]]
        assert self.ledger.open_records == len(self.records) - passed
        assert self.ledger.holds == len(self.holds)
        assert self.ledger.is_complete == (passed == len(self.records) and not self.holds)
        assert self.ledger.is_released == (self.handled == len(self.records))


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
