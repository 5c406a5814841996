"""When a partition is paused and resumed: pure. One ``Flow`` per assignment, decided by bytes in its ring.

Pausing throws the client's prefetch away (librdkafka#5343), so there are two marks and never a pause at half load.
"""

from typing import Final, NamedTuple

FRAME_OVERHEAD_BYTES: Final = 256
"""More than what packing and padding add to a record that is alone in its frame."""
_FRAME_BYTES_MIN: Final = 2048
_FRAMES_MAX: Final = 4096
_AHEAD_S: Final = 1.0
"""Work that is left when a partition is resumed: records come again after 20 to 100 ms, seldom a second. What is left
beyond that only makes pauses more frequent, and each throws the client's prefetch away."""


class Marks(NamedTuple):
    """Bytes in the ring. Invariant: an empty ring takes the largest record, and so does one at the low mark."""

    high_bytes: int
    low_bytes: int


def marks_for(
    *,
    ring_bytes: int,
    max_record_bytes: int,
    rate_bytes_per_s: float | None,
    drain_timeout_s: float,
    is_floor: bool = False,
) -> Marks:
    """The marks of a ring whose worker releases ``rate_bytes_per_s`` (None = not known yet; ``is_floor`` = at least).

    High, by bytes: the top eighth of the ring is kept free, or more if the largest record takes more: padding at the
    wrap may take as much as one record.
    High, by time: what the worker releases in half of ``drain_timeout_s``, so that a drain normally fits its deadline;
    in all of it while only small batches have told of its speed: each record of these is the dearest there is.
    The lower of the two, but never less than the largest record takes: less could place nothing.

    While no rate is known the mark is the largest record or an eighth of the ring (by default 2.5 MiB): a drain
    that comes at once must fit too, whatever the sink's speed. A new assignment does not crawl for it: those are
    thousands of ordinary records, the first release, even of a small batch, makes a rate known (milliseconds where the
    worker is fast), and a partition that was paused is resumed in that turn. At half load so much gathers before the
    first release only above 10 MB/s in one partition, or while a worker is slow to start.
    """
    largest = max_record_bytes + FRAME_OVERHEAD_BYTES
    by_bytes = max(ring_bytes - max(ring_bytes // 8, largest), largest)
    if rate_bytes_per_s is None:
        high = max(largest, ring_bytes // 8)
        low = high // 2
    else:
        within_s = drain_timeout_s if is_floor else drain_timeout_s / 2
        high = max(largest, int(min(by_bytes, rate_bytes_per_s * within_s)))
        low = min(high // 2, int(rate_bytes_per_s * _AHEAD_S))
    return Marks(high, max(0, min(low, high - largest)))


def frame_bytes_min(ring_bytes: int) -> int:
    """What a frame counts for at least, on average. The parent's books about one take 600 bytes outside the ring,
    whatever is in it; what may lie in a ring is never more than 2 MiB of books.
    """
    return max(_FRAME_BYTES_MIN, ring_bytes // _FRAMES_MAX)


class Flow:
    """Whether one partition is fetched, and where fetching goes on.

    A refused record is dropped, not kept (two full partitions that each keep a call's rest would break the bound); its
    offset is where the partition is sought to at the resume.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        """Replaced when the worker's speed is known better."""
        self._first_marks: Final = marks
        """Of the time in which the worker's speed was not known."""
        self._paused_under = marks
        self.paused = False
        self.seek_offset: int | None = None
        """First dropped offset; None = the client's own position is right."""
        self._paused_at_s = 0.0
        self._paused_before_s = 0.0

    def fits(self, used_bytes: int, frame_bytes: int) -> bool:
        return self.seek_offset is None and used_bytes + frame_bytes <= self.marks.high_bytes

    def refuse(self, offset: int) -> None:
        """Remember that ``offset`` and all behind it were dropped. Only the first counts until the resume."""
        if self.seek_offset is None:
            self.seek_offset = offset

    def wants_pause(self, used_bytes: int) -> bool:
        return not self.paused and (self.seek_offset is not None or used_bytes >= self.marks.high_bytes)

    def wants_resume(self, used_bytes: int) -> bool:
        """At the low mark; a pause that was only for want of the worker's speed ends when there is room by that."""
        marks, first = self.marks, self._first_marks
        low_bytes = marks.low_bytes
        if self._paused_under is first and marks is not first:
            low_bytes = max(low_bytes, min(marks.high_bytes // 2, marks.high_bytes - first.high_bytes))
        return self.paused and used_bytes <= low_bytes

    def pause(self, now_s: float) -> None:
        """Note that it is paused from now on."""
        self.paused = True
        self._paused_at_s = now_s
        self._paused_under = self.marks

    def resumed(self, now_s: float) -> int | None:
        """Note the resume; returns where to seek to, or None."""
        self._paused_before_s = self.paused_s(now_s)
        self.paused = False
        offset, self.seek_offset = self.seek_offset, None
        return offset

    def paused_s(self, now_s: float) -> float:
        """For how long it has been paused, all pauses of this assignment together."""
        return self._paused_before_s + (max(0.0, now_s - self._paused_at_s) if self.paused else 0.0)
