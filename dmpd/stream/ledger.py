"""What was placed into a ring, what of it is acknowledged, and up to which offset that may be committed: pure.

Released = durable in the sink or judged invalid, as the worker says, oldest first. A hold stands for something that is
still on its way (a dead letter, an emitted record). The frontier is the end of what is released and not held: space is
freed up to it and its offset is committed, nothing beyond.
"""

import heapq
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from dmpd.stream.frames import Position


class _Placed(msgspec.Struct, frozen=True, gc=False):
    """One frame in the ring."""

    position: int
    end: int
    offsets: Sequence[int]
    first: int
    """How many records were placed before it."""
    skipped: bool


class Stretch(NamedTuple):
    """Records of one frame that are not released: from ``first`` on so many, and where the next frame may begin."""

    first: Position
    records: int
    end: int


class PositionError(Exception):
    """A worker named a position that it cannot know. Permanent for that worker."""


class Ledger:
    """The frames of one assignment, from the frontier to the end.

    Invariants: ``frontier <= released <= (published, 0)``; frontier and released only grow.
    """

    def __init__(self, next_offset: int | None) -> None:
        """``next_offset``: what is committed for the partition when it is assigned; None = nothing."""
        self.next_offset = next_offset
        """Next offset to commit: one behind the last record before the frontier."""
        self.released = Position(0, 0)
        self.frontier = Position(0, 0)
        self.placed_records = 0
        """Records placed in all."""
        self.passed_records = 0
        """Records that the frontier has passed in all."""
        self.released_records = 0
        """Records released in all."""
        self._published = 0
        self.frames: deque[_Placed] = deque()
        """Those that the frontier has not passed whole; changed only here."""
        self._by_position: dict[int, _Placed] = {}
        self._holds: list[tuple[Position, int]] = []
        self._ended_holds: set[int] = set()
        self._holds_made = 0
        self._whole_released = 0
        self._unreleased_ends: deque[tuple[int, int]] = deque()

    def place(self, position: int, end: int, offsets: Sequence[int], *, skipped: bool = False) -> None:
        """Note a frame of ``offsets`` that was written at ``position``, its end being ``end``.

        ``skipped``: its records are not for the worker.
        """
        assert self._published <= position < end, (self._published, position, end)
        assert len(offsets) > 0
        before, count = self.placed_records, len(offsets)
        kept = offsets if isinstance(offsets, range) else array("q", offsets)
        placed = _Placed(position, end, kept, before, skipped)
        self.frames.append(placed)
        self._by_position[position] = placed
        self._published = end
        self.placed_records = before + count
        self._unreleased_ends.append((end, before + count))

    def release(self, position: Position) -> None:
        """Everything before ``position`` is handled.

        Raises:
            PositionError: It lies before an earlier release, behind what was placed, or in no frame; without an
                ``nth`` it is where a frame begins or ends (padding may lie between the two).
        """
        if position < self.released or position > Position(self._published, 0):
            raise PositionError(f"released {position}, expected {self.released} .. {self._published}")
        border, ended = self.released.frame, 0
        for end, _ in self._unreleased_ends:
            if end > position.frame:
                break
            border, ended = end, ended + 1
        if position.nth or (position.frame != border and position.frame not in self._by_position):
            self._frame_of(position)
        self.released = position
        for _ in range(ended):
            self._whole_released = self._unreleased_ends.popleft()[1]
        self.released_records = self._whole_released + position.nth
        self._advance()

    def hold(self, position: Position | None = None) -> int:
        """Keep the frontier at or before ``position`` (None = where it is released to now); returns a ticket.

        Raises:
            PositionError: ``position`` is released already or was never placed.
        """
        if position is None:
            position = self.released
        elif position < self.released or position >= Position(self._published, 0):
            raise PositionError(f"judged {position}, expected {self.released} .. {self._published}")
        else:
            self._frame_of(position)
        self._holds_made += 1
        heapq.heappush(self._holds, (position, self._holds_made))
        return self._holds_made

    def end_hold(self, ticket: int) -> None:
        """What the hold stood for is done. In any order; each ticket once."""
        self._ended_holds.add(ticket)
        self._advance()

    @property
    def holds(self) -> int:
        return len(self._holds) - len(self._ended_holds)

    @property
    def open_records(self) -> int:
        """Records placed that the frontier has not passed."""
        return self.placed_records - self.passed_records

    @property
    def is_complete(self) -> bool:
        """Whether the frontier has reached the end of what was placed."""
        return not self.frames and not self.holds

    @property
    def is_released(self) -> bool:
        """Whether the worker is done with all that was placed."""
        return self.released >= Position(self._published, 0)

    def offered(self, until: int) -> int:
        """How many records for the worker lie between what is released and the position ``until``."""
        return sum(len(frame.offsets) - nth for frame, nth in self._unreleased() if frame.position < until)

    def oldest_offered(self) -> tuple[Position, Position] | None:
        """The oldest record for the worker that is not released, and where the next one begins; None = there is none.

        O(frames), as is ``offered``: for the deaths of workers.
        """
        for frame, nth in self._unreleased():
            after = Position(frame.end, 0) if nth + 1 == len(frame.offsets) else Position(frame.position, nth + 1)
            return Position(frame.position, nth), after
        return None

    def offset_at(self, position: Position) -> int:
        return self._frame_of(position).offsets[position.nth]

    def ordinal_at(self, position: Position) -> int:
        """How many records were placed before the one there. Raises ``PositionError``."""
        return self._frame_of(position).first + position.nth

    def unreleased(self) -> list[Stretch]:
        """Everything for the worker that is not released, oldest first. O(frames)."""
        return [
            Stretch(Position(frame.position, nth), len(frame.offsets) - nth, frame.end)
            for frame, nth in self._unreleased()
        ]

    def _unreleased(self) -> Iterator[tuple[_Placed, int]]:
        """Frames for the worker that are not released whole, and how many records of each are."""
        for frame in self.frames:
            if frame.end > self.released.frame and not frame.skipped:
                yield frame, self.released.nth if frame.position == self.released.frame else 0

    def _frame_of(self, position: Position) -> _Placed:
        frame = self._by_position.get(position.frame)
        if frame is None or not 0 <= position.nth < len(frame.offsets):
            raise PositionError(f"no record at {position}")
        return frame

    def _advance(self) -> None:
        while self._holds and self._holds[0][1] in self._ended_holds:
            self._ended_holds.discard(heapq.heappop(self._holds)[1])
        frontier = min(self.released, self._holds[0][0]) if self._holds else self.released
        if frontier <= self.frontier:
            return
        before = self.frontier
        while self.frames and self.frames[0].end <= frontier.frame:
            frame = self.frames.popleft()
            del self._by_position[frame.position]
            self._pass(frame, before, len(frame.offsets))
        if frontier.nth:
            self._pass(self.frames[0], before, frontier.nth)
        self.frontier = frontier

    def _pass(self, frame: _Placed, before: Position, stop_index: int) -> None:
        start_index = before.nth if frame.position == before.frame else 0
        if stop_index > start_index:
            self.next_offset = frame.offsets[stop_index - 1] + 1
            self.passed_records += stop_index - start_index
