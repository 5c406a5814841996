"""The worker's loop: read what the ring holds, hand it to the handler, say how far it got. One process, one partition.

Runs in a fork of the fork server. Ends by the channel's end, by the handler's error, or by KILL; never by a signal.
"""

import logging
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from dmpd.stream import frames
from dmpd.stream.channel import ChannelClosedError, WorkerEnd
from dmpd.stream.frames import Position
from dmpd.stream.handler import Handler, Record
from dmpd.stream.ring import RingConsumer, RingCorruptedError

_log = logging.getLogger(__name__)

EXIT_ENDED: Final = 0
EXIT_FAILED: Final = 70
_QUICK_S: Final = 0.001
_UNASKED_MAX: Final = 8
"""After a batch that was quick nothing new is likely, and where records trickle in to ask costs a quarter of a batch:
so only before every so many of those."""


_BULK_BYTES: Final = 64 * 1024
"""With less before it a worker does not expect more at once: some 150 records of the usual size."""
_BULK_WAIT_MIN_S: Final = 0.1
_BULK_COMING_WAIT_MIN_S: Final = 2.0
"""Where Kafka is known to have more: it is late already, and each fold over all of it saves writing its rows again."""
_BULK_WAIT_MAX_S: Final = 3.0
_ALONE_BYTES: Final = 16 * 1024
"""A frame larger than this is taken for more than one record, unread."""
_ONE_FRAME_BYTES: Final = 1
"""Of the first batch: how fast it was decides how much is let in, so it is to be over soon. Less than a frame says
nothing of that."""
_BULK_PAUSES: Final = 3
_BULK_PAUSE_MAX_S: Final = 1 / 3
"""Nothing more for a third of the wait ends it, or for this long: at the end of a backlog nothing more comes."""


class Bounds(NamedTuple):
    """Of one batch; a single record is given whatever its size."""

    records_max: int
    bytes_max: int


class _Span(msgspec.Struct):
    """Records of one frame that are part of a batch, from the ``nth`` on."""

    frame: int
    nth: int
    records: list[Record]


class BatchReader:
    """Cuts batches out of a ring. Position moves only by ``take``; what it returned may be read again by another."""

    def __init__(self, ring: RingConsumer, start: Position, bounds: Bounds) -> None:
        self._ring = ring
        self._bounds = bounds
        self.bytes_max: Final = bounds.bytes_max
        self._cut: tuple[int, list[Record]] | None = None
        """A frame of which only a part was taken, and where it lies."""
        self.frame, self.nth = start
        """Where the next batch begins."""

    @property
    def position(self) -> Position:
        return Position(self.frame, self.nth)

    def take(self, published: int, records_max: int | None = None, bytes_max: int | None = None) -> list[_Span]:
        """The next batch of what lies before ``published``, which is beyond ``position``. May be without records.

        ``records_max`` and ``bytes_max`` may only narrow the reader's own bounds.

        Raises:
            RingCorruptedError: What lies there is no frame.
        """
        spans: list[_Span] = []
        records_left, bytes_left = self._bounds
        if records_max is not None and records_max < records_left:
            records_left = records_max
        if bytes_max is not None and bytes_max < bytes_left:
            bytes_left = bytes_max
        frame, nth = self.frame, self.nth
        while frame < published and records_left > 0:
            payload, at, end = self._ring.read(frame)
            if spans and len(payload) > bytes_left:
                break
            if at != frame:  # behind a padding
                frame, nth = at, 0
            records = self._decoded(at, payload)
            if nth or len(records) > records_left:
                chosen = records[nth : nth + records_left]
                self._cut = (at, records)
            else:
                chosen = records
            spans.append(_Span(at, nth, chosen))
            records_left -= len(chosen)
            bytes_left -= len(payload)
            if nth + len(chosen) < len(records):
                nth += len(chosen)
                break
            frame, nth = end, 0
        self.frame, self.nth = frame, nth
        return spans

    def take_alone(self, published: int) -> list[Record] | None:
        """The record that is alone before ``published``; None = more are there. Empty = it is not for the handler.

        Nothing that ``take`` would not give too, in half the steps: where records trickle in each batch is this, and
        caches are cold. No bound and no wait for bulk has a say in it.
        """
        if self.nth:
            return None
        payload, at, end = self._ring.read(self.frame)
        if end != published or at != self.frame or len(payload) > _ALONE_BYTES:
            return None
        records = self._decoded(at, payload)
        if len(records) > 1:
            return None
        self.frame = end
        return records

    def _decoded(self, at: int, payload: memoryview) -> list[Record]:
        if self._cut is not None and self._cut[0] == at:
            return self._cut[1]
        self._cut = None
        try:
            return frames.records(payload)
        except (msgspec.DecodeError, ValueError) as error:
            raise RingCorruptedError(at, len(payload), -1) from error


class _ChannelOutput:
    """What the handler may say, during one call of ``handle``, after ``begin``."""

    def __init__(self, channel: WorkerEnd, spans: Sequence[_Span] = ()) -> None:
        self._channel = channel
        self._spans = spans
        self._positions: dict[int, Position] | None = None

    def begin(self, spans: Sequence[_Span]) -> None:
        self._spans = spans
        self._positions = None

    def invalid(self, record: Record, reason: str, detail: str = "") -> None:
        if self._positions is None:
            self._positions = {
                other.offset: Position(span.frame, span.nth + i)
                for span in self._spans
                for i, other in enumerate(span.records)
            }
        position = self._positions.get(record.offset)
        if position is None:
            raise ValueError(f"offset {record.offset} is not of this batch")
        self._channel.invalid(position, reason, detail)

    def emit(self, topic: str, key: bytes, value: bytes) -> None:
        self._channel.emit(topic, key, value)

    def waiting_sink(self, detail: str = "", *, halted: bool = False) -> None:
        self._channel.state("halted_sink" if halted else "waiting_sink", detail)


def run(
    factory: Callable[[int, bytes], Handler],
    argument: bytes,
    *,
    partition: int,
    ring_fd: int,
    channel: socket.socket,
    start: Position,
    bounds: Bounds,
) -> int:
    """Work until the parent closes the channel; returns the exit status. Raises nothing of the handler's."""
    end = WorkerEnd(channel)
    try:
        reader = BatchReader(RingConsumer(ring_fd), start, bounds)
        handler = factory(partition, argument)
        end.state("ready")
        try:
            _work(handler, end, reader)
        except ChannelClosedError:
            handler.close()
            return EXIT_ENDED
    except ChannelClosedError:
        return EXIT_ENDED
    except Exception as error:  # the border to the user's code: told to the parent, who replaces us
        _tell_failure(end, partition, error)
    return EXIT_FAILED


def _work(handler: Handler, channel: WorkerEnd, reader: BatchReader) -> None:
    published = frame = reader.position.frame
    most_bytes = reader.bytes_max * 15 // 16  # beyond that a frame may not fit any more
    is_first, is_quick, unasked, busy_s = True, False, 0, 0.0
    output, clock_s = _ChannelOutput(channel), time.monotonic
    while True:
        if published > frame or not is_quick or unasked == _UNASKED_MAX:
            published, unasked = channel.published(published, wait=published <= frame), 0
        else:
            published, unasked = max(published, channel.next_published()), unasked + 1
        if published <= frame:
            continue
        began_s = clock_s()
        batch = reader.take_alone(published)
        if batch is not None:
            output.begin([_Span(frame, 0, batch)])
        else:
            wanted_bytes = getattr(handler, "batch_bytes_wanted", 0)
            if wanted_bytes and is_first:
                wanted_bytes = _ONE_FRAME_BYTES
            elif wanted_bytes:
                wanted_bytes = min(wanted_bytes, most_bytes)
                published = _while_bulk_comes(channel, published, frame, wanted_bytes, busy_s)
                began_s = clock_s()
            spans = reader.take(published, channel.records_max, wanted_bytes if 0 < wanted_bytes < most_bytes else None)
            batch = spans[0].records if len(spans) == 1 else [record for span in spans for record in span.records]
            output.begin(spans)
        if batch:
            handler.handle(batch, output)
        frame = reader.frame
        channel.released_to(frame, reader.nth)
        took_s = clock_s() - began_s
        busy_s = _BULK_WAIT_MAX_S if is_first else took_s  # the parent is about to let in what its speed allows
        is_first, is_quick = False, took_s < _QUICK_S


def _while_bulk_comes(channel: WorkerEnd, published: int, position: int, wanted_bytes: int, busy_s: float) -> int:
    """Where the ring is published to once enough of it is; see ``handler.Handler``.

    ``busy_s``: how long the last batch took. To wait as long makes nobody twice as late, and where batches take long
    the parent, who shares the machine, is slow too.
    """
    if published - position < min(wanted_bytes, _BULK_BYTES):
        return published
    began_s = news_s = time.monotonic()
    while published - position < wanted_bytes:
        wait_s = min(_BULK_WAIT_MAX_S, max(_BULK_COMING_WAIT_MIN_S if channel.coming else _BULK_WAIT_MIN_S, busy_s))
        until_s = began_s + wait_s
        if not channel.coming:
            until_s = min(until_s, news_s + min(wait_s / _BULK_PAUSES, _BULK_PAUSE_MAX_S))
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            break
        newest = channel.published_within(published, left_s)
        if newest > published:
            published, news_s = newest, time.monotonic()
    return published


def _tell_failure(channel: WorkerEnd, partition: int, error: Exception) -> None:
    corrupted = isinstance(error, RingCorruptedError)
    what = "ring corrupted" if corrupted else "handler failed"
    _log.error("partition %d: %s\n%s", partition, what, "".join(traceback.format_exception(error)))
    try:
        channel.state("corrupted" if corrupted else "failed", f"{what}: {type(error).__name__}: {error}")
    except ChannelClosedError as gone:
        _log.warning("partition %d: the parent is gone: %s", partition, gone)
