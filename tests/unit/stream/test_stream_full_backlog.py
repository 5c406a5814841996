"""While what workers emit waits for the broker they are not heard, so their words must not end the loop's wait."""

import contextlib

import pytest

from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import channel, workers
from dmpd.stream.channel import Emit, ParentEnd, WorkerEnd
from dmpd.stream.drain import StopWatch
from dmpd.stream.frames import Frame
from dmpd.stream.outgoing import BACKLOG_MAX, OutgoingRecords
from dmpd.stream.parent import Parent
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus
from dmpd.stream.watchdog import Watchdog
from dmpd.stream.worker_life import WorkerLife


class SilentProducer:
    fatal = None

    def __init__(self):
        self.polled_s = []

    def poll(self, timeout_s):
        self.polled_s.append(timeout_s)
        return 0


def test_a_paused_loop_waits_for_the_broker_instead_of_the_workers(monkeypatch):
    producer = SilentProducer()
    lifecycle = Lifecycle("test")
    parent = Parent(
        KafkaSettings(),
        StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096),
        server=None,
        producer=producer,
        lifecycle=lifecycle,
        status=StreamStatus(),
        stop_watch=StopWatch(lifecycle, timeout_s=1.0),
    )
    waited_s = []
    monkeypatch.setattr(workers, "wait", lambda _partitions, timeout_s: waited_s.append(timeout_s))
    parent.on_assigned({0: 5})
    [partition] = parent._partitions.values()
    partition.flow.pause(0.0)
    parent._settle([], 0.0)
    for _ in range(BACKLOG_MAX):
        parent._outgoing.emit(partition, Emit("t", b"k", b"v"))
    assert parent._poll_timeout_s() == 0
    assert (producer.polled_s, len(waited_s)) == ([], 1)
    parent._outgoing.emit(partition, Emit("t", b"k", b"v"))
    assert parent._poll_timeout_s() == 0
    assert producer.polled_s[0] > 0
    assert len(waited_s) == 1
    parent.on_lost([0])


class Emitting:
    """A worker that has something to do and says ever more, beside its parent's ``Workers``."""

    def __init__(self, monkeypatch):
        settings = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)
        self.outgoing = OutgoingRecords(SilentProducer(), topic="t", dead_letter_topic="d")
        self.workers = workers.Workers(None, settings, self.outgoing)
        self.partition = Partition(0, epoch=1, next_offset=0, settings=settings)
        self.stuck_s = settings.stuck_timeout_s
        self._now_s = 0.0
        ours, theirs = channel.pair()
        theirs.setblocking(False)
        self._socket, self.end = theirs, WorkerEnd(theirs)
        watchdog = Watchdog(stuck_s=self.stuck_s, sink_silence_s=settings.sink_silence_timeout_s)
        self.life = self.partition.life = WorkerLife(1, -1, ParentEnd(ours), watchdog)
        monkeypatch.setattr(self.life, "kill", lambda: None)
        self.workers._ears.add(self.life.channel, 0)
        self.partition.place(Frame(range(1), [0], [b"k"], [b"v"], None))
        self.partition.tell_worker()

    def emit(self):
        """As much as its channel takes; returns whether it took anything."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.end.emit("t", b"k", b"v")
                count += 1
        return count > 0

    def watch_for(self, duration_s):
        for _ in range(int(duration_s) + 2):
            self._now_s += 1.0
            self.workers._watch(self.partition, self._now_s)

    def close(self):
        self.workers._ears.remove(self.life.channel)
        self.life.channel.close()
        self._socket.close()
        self.partition.life = None
        self.partition.close()


@pytest.fixture
def emitting(monkeypatch):
    emitting = Emitting(monkeypatch)
    yield emitting
    emitting.close()


def test_what_workers_emit_is_bounded_while_the_broker_takes_nothing(emitting):
    while emitting.outgoing.backlog < 2 * BACKLOG_MAX and emitting.emit():
        emitting.workers.listen({0: emitting.partition})
    assert emitting.outgoing.backlog == BACKLOG_MAX + 1


def test_a_worker_that_is_not_heard_is_not_called_stuck(emitting):
    """It waits until its words are read: an outage of the broker is no fault of its."""
    while emitting.outgoing.backlog < 2 * BACKLOG_MAX and emitting.emit():
        emitting.workers.listen({0: emitting.partition})
    emitting.watch_for(3 * emitting.stuck_s)
    assert emitting.life.killed_because == ""
    emitting.outgoing._waiting.clear()
    emitting.watch_for(3 * emitting.stuck_s)
    assert emitting.life.killed_because == "killed as stuck"
