"""When a partition is paused and resumed: pure. One ``Flow`` per assignment, decided by bytes in its ring.

Pausing throws the client's prefetch away (librdkafka#5343), so there are two marks and never a pause at half load.
Marks by time (how much a worker releases within the drain deadline) will narrow ``marks_for``; nothing else.
"""

from typing import Final, NamedTuple

FRAME_OVERHEAD_BYTES: Final = 256
"""More than what packing and padding add to a record that is alone in its frame."""


class Marks(NamedTuple):
    """Bytes in the ring. Invariant: an empty ring takes the largest record, and so does one at the low mark."""

    high_bytes: int
    low_bytes: int


def marks_for(*, ring_bytes: int, max_record_bytes: int) -> Marks:
    """The marks of a ring. The top quarter is kept free: padding at the wrap may take as much as one record."""
    largest = max_record_bytes + FRAME_OVERHEAD_BYTES
    high = max(ring_bytes * 3 // 4, largest)
    return Marks(high, max(0, min(high // 2, high - largest)))


class Flow:
    """Whether one partition is fetched, and where fetching goes on.

    A refused record is dropped, not kept (two full partitions that each keep a call's rest would break the bound); its
    offset is where the partition is sought to at the resume.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.paused = False
        self.seek_offset: int | None = None
        """First dropped offset; None = the client's own position is right."""

    def fits(self, used_bytes: int, frame_bytes: int) -> bool:
        return self.seek_offset is None and used_bytes + frame_bytes <= self.marks.high_bytes

    def refuse(self, offset: int) -> None:
        """Remember that ``offset`` and all behind it were dropped. Only the first counts until the resume."""
        if self.seek_offset is None:
            self.seek_offset = offset

    def wants_pause(self, used_bytes: int) -> bool:
        return not self.paused and (self.seek_offset is not None or used_bytes >= self.marks.high_bytes)

    def wants_resume(self, used_bytes: int) -> bool:
        return self.paused and used_bytes <= self.marks.low_bytes

    def resumed(self) -> int | None:
        """Note the resume; returns where to seek to, or None."""
        self.paused = False
        offset, self.seek_offset = self.seek_offset, None
        return offset
