"""``ring``: frames of 500 records through ring and channel between two processes, beside a queue of records.

``ring`` reads as far as this layer goes: columns. ``ring/worker`` does what a worker does up to the handler: it cuts
batches and makes records.
"""

import multiprocessing
import os
import select
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from socket import socket
from typing import Any

from msgspec import Struct

from dmpd.stream import channel, frames
from dmpd.stream.channel import ChannelClosedError, ParentEnd, ReleasedTo, WorkerEnd
from dmpd.stream.frames import Frame, Position
from dmpd.stream.ring import RingConsumer, RingProducer, create_memory
from dmpd.stream.settings import StreamSettings
from dmpd.stream.worker import BatchReader, Bounds
from tests.bench.report import Figure, figure
from tests.bench.stream.broker import Broker, record_value
from tests.bench.stream.size import Size

RECORDS = 1_000_000
QUEUE_RECORDS = 100_000
"""Its rate does not depend on how many; a million would take most of the time."""
PER_FRAME = 500
_FORK = multiprocessing.get_context("fork")
_END = None
_US = "us CPU per record, both sides"


class _Run(Struct):
    rate: float
    writer_us: float
    """CPU per record."""
    reader_us: float

    @property
    def cpu_us(self) -> float:
        return self.writer_us + self.reader_us


_Reader = Callable[[WorkerEnd, RingConsumer], int]
"""Reads to the end of the channel; returns how many records it saw."""


def measure(_broker: Broker, size: Size) -> list[Figure]:
    queues: list[_Run] = []
    rings: list[_Run] = []
    workers: list[_Run] = []
    for _ in range(size.runs):
        queues.append(_queue())
        rings.append(_ring(_read_columns))
        workers.append(_ring(_read_records))
    queue_rates = [one.rate for one in queues]
    queue_us = [one.cpu_us for one in queues]
    return [
        figure("ring", "records/s", [one.rate for one in rings], reference=queue_rates, bar=">= 25x"),
        figure("ring/cpu", _US, [one.cpu_us for one in rings], reference=queue_us, bar="<= 0.40"),
        figure("ring/cpu_writer", _US, [one.writer_us for one in rings]),
        figure("ring/worker", "records/s", [one.rate for one in workers], reference=queue_rates),
        figure("ring/worker/cpu", _US, [one.cpu_us for one in workers], reference=queue_us),
    ]


def _columns(number: int) -> tuple[list[int], list[bytes | None], list[bytes | None]]:
    keys: list[bytes | None] = [b"key-%095d" % n for n in range(number)]
    values: list[bytes | None] = [record_value(n, 300) for n in range(number)]
    return [1_700_000_000_000] * number, keys, values


# The ring


def _ring(read: _Reader) -> _Run:
    memory = create_memory(StreamSettings().ring_capacity_bytes)
    ours, theirs = channel.pair()
    told, tell = _FORK.Pipe(duplex=False)
    reader = _FORK.Process(target=_read_ring, args=(read, memory, ours, theirs, tell))
    reader.start()
    theirs.close()
    end, ring = ParentEnd(ours), RingProducer(memory)
    _wait(end)
    end.receive()  # it is ready
    timestamps, keys, values = _columns(PER_FRAME)
    started_s, cpu_before_s = time.monotonic(), time.process_time()
    for first in range(0, RECORDS, PER_FRAME):
        payload = frames.encode(Frame(range(first, first + PER_FRAME), timestamps, keys, values, None))
        while ring.write(payload) is None:
            _hear(end, ring, wait=True)
        while not end.publish(ring.published, RECORDS, 0):
            _hear(end, ring, wait=True)
        _hear(end, ring, wait=False)
    while ring.used_bytes:
        _hear(end, ring, wait=True)
    took_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_before_s
    end.close()
    reader_cpu_s = told.recv()
    reader.join()
    ring.close()
    os.close(memory)
    return _Run(RECORDS / took_s, cpu_s / RECORDS * 1e6, reader_cpu_s / RECORDS * 1e6)


def _hear(end: ParentEnd, ring: RingProducer, *, wait: bool) -> None:
    if wait:
        _wait(end)
    while (message := end.receive()) is not None:
        assert isinstance(message, ReleasedTo)
        ring.free_to(message.frame)


def _wait(end: ParentEnd) -> None:
    select.select([end], [], [])


def _read_ring(read: _Reader, memory: int, parents: socket, sock: socket, tell: Connection) -> None:
    parents.close()
    end, ring = WorkerEnd(sock), RingConsumer(memory)
    end.state("ready")
    cpu_before_s = time.process_time()
    seen = read(end, ring)
    tell.send(time.process_time() - cpu_before_s)
    assert seen == RECORDS, seen


def _read_columns(end: WorkerEnd, ring: RingConsumer) -> int:
    seen = published = position = 0
    try:
        while True:
            published = end.published(published, wait=True)
            while position < published:
                payload, _, position = ring.read(position)
                seen += len(frames.decode(payload).values)
            end.released_to(position, 0)
    except ChannelClosedError:
        return seen


def _read_records(end: WorkerEnd, ring: RingConsumer) -> int:
    settings = StreamSettings()
    reader = BatchReader(ring, Position(0, 0), Bounds(settings.batch_records_max, settings.batch_bytes_max))
    seen = published = 0
    try:
        while True:
            published = end.published(published, wait=published <= reader.position.frame)
            seen += sum(len(span.records) for span in reader.take(published))
            end.released_to(*reader.position)
    except ChannelClosedError:
        return seen


# The queue


def _queue() -> _Run:
    queue: Queue[Any] = _FORK.Queue()
    told, tell = _FORK.Pipe(duplex=False)
    reader = _FORK.Process(target=_read_queue, args=(queue, tell))
    reader.start()
    timestamps, keys, values = _columns(PER_FRAME)
    started_s, cpu_before_s = time.monotonic(), time.process_time()
    for n in range(QUEUE_RECORDS):
        nth = n % PER_FRAME
        queue.put((n, timestamps[nth], keys[nth], values[nth]))
    queue.put(_END)
    reader_cpu_s = told.recv()
    took_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_before_s
    reader.join()
    queue.close()
    return _Run(QUEUE_RECORDS / took_s, cpu_s / QUEUE_RECORDS * 1e6, reader_cpu_s / QUEUE_RECORDS * 1e6)


def _read_queue(queue: "Queue[Any]", tell: Connection) -> None:
    seen, cpu_before_s = 0, time.process_time()
    while queue.get() is not _END and seen < QUEUE_RECORDS:
        seen += 1
    tell.send(time.process_time() - cpu_before_s)
