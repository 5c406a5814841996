"""Workers in steps, any of which may be their last, and a fork server whose children are objects."""

import os
import signal
import socket

from dmpd.stream.channel import ChannelClosedError, WorkerEnd
from dmpd.stream.frames import Position
from dmpd.stream.ring import RingConsumer, RingCorruptedError
from dmpd.stream.worker import BatchReader, Bounds, _ChannelOutput
from tests.support.stream_sim.broker import ViolationError


class SimWorker:
    """A worker's loop. A record's value says what it does to it."""

    release_early = False
    verdict_late = False

    def __init__(self, sim, request, ring_fd, channel):
        self.sim, self.partition = sim, request.partition
        channel.setblocking(False)
        self.channel, self.end = channel, WorkerEnd(channel)
        bounds = Bounds(request.batch_records_max, request.batch_bytes_max)
        self.ring = RingConsumer(ring_fd)
        self.reader = BatchReader(self.ring, Position(request.frame, request.nth), bounds)
        self.published, self.batch, self.is_done, self.last = request.frame, None, False, -1
        self.attempts, self.said_waiting = 0, False
        self.pidfd, self._alive = os.pipe()
        self.status = None
        self.ring_fd = ring_fd
        self.end.state("ready")

    @property
    def is_dead(self):
        return self.status is not None

    def die(self, status=int(signal.SIGKILL)):
        if self.status is None:
            self.status = status
            os.close(self._alive)
            self.channel.close()
            self.batch = self.reader = None
            self.ring.close()

    def step(self):
        """Returns whether there may be more to do."""
        try:
            if self.batch is None:
                self._take()
                return self.batch is not None
            if not self.is_done:
                self._handle()
            else:
                self._release()
        except RingCorruptedError:
            self.end.state("corrupted", "as injected")
            self.die(70 << 8)
        except ChannelClosedError:
            self.die(0)
        return not self.is_dead

    def _release(self):
        late = [r for s in self.batch for r in s.records if r.value.startswith(b"bad")] if self.verdict_late else ()
        output = _ChannelOutput(self.end, self.batch)
        self.batch, self.is_done = None, False
        self.end.released_to(*self.reader.position)
        self.sim.server.said_released[self.ring_fd] = self.reader.position
        for record in late:
            output.invalid(record, "bad")

    def _take(self):
        self.published = self.end.published(self.published, wait=False)
        if self.published > self.reader.position.frame:
            self.batch = self.reader.take(self.published, self.end.records_max)
            if self.release_early:
                self.end.released_to(*self.reader.position)

    def _handle(self):
        if self.sim.sink_fails():
            self.end.state("waiting_sink")
            return
        self.attempts += 1
        if self.attempts <= self.sim.sink_slowness:
            return
        self.attempts = 0
        records = [record for span in self.batch for record in span.records]
        kinds = {record.value[:7].strip() for record in records}
        if b"deadly" in kinds:
            self.die(int(signal.SIGSEGV))
        elif b"raising" in kinds:
            self.end.state("failed", "handler failed")
            self.die(70 << 8)
        elif b"silent" in kinds:
            if self.attempts == 0 and not self.said_waiting:
                self.said_waiting = True
                self.end.state("waiting_sink")
        elif b"hanging" not in kinds:
            self._store(records, _ChannelOutput(self.end, self.batch))

    def _store(self, records, output):
        for record in records:
            if record.offset <= self.last:
                raise ViolationError(f"partition {self.partition}: {record.offset} came after {self.last}")
            self.last = record.offset
            if record.value.startswith(b"bad"):
                if not self.verdict_late:
                    output.invalid(record, "bad")
            else:
                self.sim.broker.durable[self.partition].add(record.offset)
        self.is_done = True


class SimServer:
    """A pipe's end stands for a pidfd. A dead server's children go on until they are killed.

    Pids count the births: a descriptor's number comes again whenever the process likes, and a seed is to tell all.
    """

    def __init__(self, sim):
        self.sim, self.workers, self.is_up = sim, [], True
        self.said_released = {}
        """By ring: what workers have said of it before they died; nothing of it is offered again."""

    def start(self):
        self.is_up = True

    def stop(self):
        self.is_up = False

    def is_alive(self):
        return self.is_up

    def fork(self, request, *, ring_fd, channel):
        if any(w.partition == request.partition for w in self.alive()):
            raise ViolationError(f"two workers of partition {request.partition}")
        start = Position(request.frame, request.nth)
        if request.frame == request.nth == 0:  # a new assignment; descriptors are used again
            self.said_released.pop(ring_fd, None)
        if start < self.said_released.get(ring_fd, start):
            raise ViolationError(f"partition {request.partition}: {start} was released and is offered again")
        copy = socket.socket(fileno=os.dup(channel.fileno()))
        worker = SimWorker(self.sim, request, ring_fd, copy)
        self.workers.append(worker)
        return len(self.workers), worker.pidfd

    def status_of(self, pid):
        return self.workers[pid - 1].status if self.is_up else None

    def kill(self, pidfd, _signal):
        worker = next(worker for worker in reversed(self.workers) if worker.pidfd == pidfd)
        for _ in range(int(self.sim.dice.random() * 3)):  # a kill takes effect a little later
            if not worker.is_dead:
                worker.step()
        partition = self.sim.parent._partitions.get(worker.partition)
        if partition is not None and partition.standstill.is_due:
            self.said_released.pop(worker.ring_fd, None)  # what is halted is silenced: its last words are void
        worker.die()

    def alive(self):
        return [worker for worker in self.workers if not worker.is_dead]
