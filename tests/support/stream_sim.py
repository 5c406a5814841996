"""The stream's parent, its workers and a broker in one process, with a scheduler that a seed decides.

Real: parent, rings, channels, ledgers, commits, batches. Simulated: Kafka, worker processes, sink, time.
"""

import os
import random
import socket

from confluent_kafka import KafkaError, KafkaException, Message

from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import parent as parent_module
from dmpd.stream import worker_life
from dmpd.stream import workers as workers_module
from dmpd.stream.channel import ChannelClosedError, WorkerEnd
from dmpd.stream.fetch_positions import FetchPositions
from dmpd.stream.frames import Position
from dmpd.stream.ring import RingConsumer, RingCorruptedError
from dmpd.stream.settings import StreamSettings
from dmpd.stream.worker import BatchReader, Bounds, _ChannelOutput

PARTITIONS = 2
RECORDS = 60
TURN_S = 0.25
FAULTY_TURNS = 40
QUIET_TURNS = 2500
SETTINGS = StreamSettings(
    topic="t",
    dead_letter_topic="d",
    ring_bytes=1 << 16,
    max_record_bytes=1024,
    batch_records_max=16,
    consume_records_max=20,
    revoke_timeout_s=1e-9,
    stuck_timeout_s=4.0,
    sink_silence_timeout_s=8.0,
)


class ViolationError(AssertionError):
    """A promise of the stream was broken."""


class Broker:
    """Two partitions: what is in them, what is committed, what was done to each record."""

    def __init__(self, dice):
        kinds = [b"good"] * 60 + [b"bad"] * 2 + [b"deadly"] + [b"hanging"] * dice.randrange(2)
        self.values = {p: [dice.choice(kinds) for _ in range(RECORDS)] for p in range(PARTITIONS)}
        self.start = dict.fromkeys(range(PARTITIONS), 0)
        self.committed = dict.fromkeys(range(PARTITIONS))
        self.durable = {p: set() for p in range(PARTITIONS)}
        self.deleted = {p: set() for p in range(PARTITIONS)}
        self.dead = MemoryKafka()
        self.dead.create_topic("d")

    def dead_letters(self, partition):
        headers = [dict(record.headers) for record in self.dead.topics["d"][0]]
        return {int(h["dmpd-offset"]): h for h in headers if h["dmpd-partition"] == b"%d" % partition}

    def commit(self, offsets):
        for partition, offset in offsets.items():
            settled = self.durable[partition] | self.deleted[partition] | self.dead_letters(partition).keys()
            missing = [n for n in range(offset) if n not in settled]
            if missing:
                raise ViolationError(f"partition {partition} committed to {offset}, nobody handled {missing}")
            self.committed[partition] = offset

    def retention(self, partition, offset):
        for n in range(self.start[partition], offset):
            if n not in self.durable[partition]:
                self.deleted[partition].add(n)
        self.start[partition] = max(self.start[partition], offset)


class SimConsumer:
    """Kafka's client: one member of the group, callbacks inside ``poll`` and ``consume``."""

    def __init__(self, sim):
        self.sim, self.positions, self.paused, self.commits = sim, {}, set(), []
        self.callbacks, self.fails, self.commits_fail, self.abandoned = [], False, 0, False
        self.fetch_positions = FetchPositions("t")

    def subscribe(self):
        self.callbacks.append(lambda: self.assign(range(PARTITIONS)))

    def assign(self, numbers):
        fresh = [n for n in numbers if n not in self.positions]
        committed = {n: self.sim.broker.committed[n] for n in fresh}
        for number, offset in committed.items():
            self.positions[number] = self.sim.broker.start[number] if offset is None else offset
        self.paused -= set(fresh)
        self.sim.parent.on_assigned(committed)

    def take_away(self, numbers, *, lost):
        owned = [n for n in numbers if n in self.positions]
        (self.sim.parent.on_lost if lost else self.sim.parent.on_revoked)(owned)
        for number in owned:
            del self.positions[number]

    def poll(self, timeout_s):
        if self.fails:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        self._serve()
        found = self._take(1)
        return found[0] if found else None

    def consume(self, records_max):
        self._serve()
        return self._take(self.sim.dice.randint(0, records_max))

    def _serve(self):
        while self.callbacks:
            self.callbacks.pop(0)()
        if self.commits and self.sim.dice.random() < 0.6:
            offsets = self.commits.pop(0)
            if self.commits_fail > 0:
                self.commits_fail -= 1
                self.sim.parent.on_committed({}, asked=offsets)
            else:
                self.sim.broker.commit(offsets)
                self.sim.parent.on_committed(offsets, asked=offsets)
        if self.sim.callback_between:
            self.callbacks.append(self.sim.callback_between.pop())

    def _take(self, count):
        found = []
        for number in self.sim.dice.sample(sorted(self.positions), len(self.positions)):
            values, position = self.sim.broker.values[number], self.positions[number]
            if number in self.paused or position is None or len(found) >= count:
                continue
            if position < self.sim.broker.start[number]:
                self.positions[number] = None
                error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
                found.append(Message(topic="t", partition=number, offset=-1, error=error))
                continue
            stop = min(len(values), position + count - len(found))
            found += [
                Message(topic="t", partition=number, offset=n, key=b"k", timestamp=(1, 1), value=values[n].ljust(1000))
                for n in range(position, stop)
            ]
            self.positions[number] = max(position, stop)
        return found

    def pause(self, partitions):
        self.paused |= set(partitions)

    def resume(self, partitions):
        self.paused -= set(partitions)

    def seek(self, partition, offset):
        self.positions[partition] = offset

    def start_at(self, partition, offset):
        self.positions[partition] = self.sim.broker.start[partition] if offset is None else offset
        self.paused.discard(partition)

    def unpause_at(self, partition, offset):
        self.resume([partition])
        self.seek(partition, offset)

    def wake(self, partitions):
        return

    def commit(self, offsets):
        self.commits.append(dict(offsets))

    def commit_confirmed(self, offsets, timeout_s):
        if self.commits_fail > 0:
            self.commits_fail -= 1
            return False
        self.sim.broker.commit(offsets)
        return True

    def abandon(self):
        self.abandoned = True


class SimWorker:
    """A worker's loop in steps, any of which may be its last."""

    release_early = False

    def __init__(self, sim, request, ring_fd, channel):
        self.sim, self.partition = sim, request.partition
        channel.setblocking(False)
        self.channel, self.end = channel, WorkerEnd(channel)
        self.ring = RingConsumer(ring_fd)
        bounds = Bounds(request.batch_records_max, request.batch_bytes_max)
        self.reader = BatchReader(self.ring, Position(request.frame, request.nth), bounds)
        self.published, self.batch, self.is_done, self.last = request.frame, None, False, -1
        self.pidfd, self._alive = os.pipe()
        self.is_dead = False
        self.end.state("ready")

    def die(self):
        if not self.is_dead:
            self.is_dead = True
            os.close(self._alive)
            self.channel.close()
            self.batch = self.reader = None

    def step(self):
        try:
            if self.batch is None:
                self._take()
            elif not self.is_done:
                self._handle()
            else:
                self.batch, self.is_done = None, False
                self.end.released_to(self.reader.position)
        except RingCorruptedError:
            self.end.state("corrupted", "as injected")
            self.die()
        except ChannelClosedError:
            self.die()

    def _take(self):
        self.published = self.end.published(self.published, wait=False)
        if self.published > self.reader.position.frame:
            self.batch = self.reader.take(self.published, self.end.records_max)
            if self.release_early:
                self.end.released_to(self.reader.position)

    def _handle(self):
        records = [record for span in self.batch for record in span.records]
        values = {record.value.strip() for record in records}
        if self.sim.sink_is_down:
            self.end.state("waiting_sink")
        elif b"deadly" in values:
            self.die()
        elif b"hanging" not in values:
            output = _ChannelOutput(self.end, self.batch)
            for record in records:
                if record.offset <= self.last:
                    raise ViolationError(f"partition {self.partition}: {record.offset} came after {self.last}")
                self.last = record.offset
                if record.value.startswith(b"bad"):
                    output.invalid(record, "bad")
                else:
                    self.sim.broker.durable[self.partition].add(record.offset)
            self.is_done = True


class SimServer:
    """A fork server whose children are objects; a pipe's end stands for a pidfd."""

    def __init__(self, sim):
        self.sim, self.workers = sim, {}

    def fork(self, request, *, ring_fd, channel):
        if any(not w.is_dead and w.partition == request.partition for w in self.workers.values()):
            raise ViolationError(f"two workers of partition {request.partition}")
        copy = socket.socket(fileno=os.dup(channel.fileno()))
        worker = SimWorker(self.sim, request, ring_fd, copy)
        self.workers[worker.pidfd] = worker
        return worker.pidfd, worker.pidfd

    def status_of(self, pid):
        return 9  # as after SIGKILL

    def kill(self, pidfd, _signal):
        self.workers[pidfd].die()

    def alive(self):
        return [worker for worker in self.workers.values() if not worker.is_dead]

    def is_alive(self):
        return True


class NoStatus:
    """Nobody looks."""

    def publish(self, *_, **__):
        return


class Simulation:
    """One history. ``run`` ends when all is handled and committed; raises ``ViolationError`` with the seed."""

    def __init__(self, seed, monkeypatch):
        self.seed, self.dice = seed, random.Random(seed)
        self.broker, self.server, self.now_s = Broker(self.dice), SimServer(self), 1000.0
        self.sink_is_down, self.callback_between, self.kills = False, [], 0
        self.consumers = []
        monkeypatch.setattr(parent_module, "StreamConsumer", self._connect)
        monkeypatch.setattr(worker_life.signal, "pidfd_send_signal", self.server.kill)
        monkeypatch.setattr(workers_module, "wait", lambda partitions, timeout_s: None)
        self.producer = MemoryProducer(self.broker.dead)
        self.parent = parent_module.Parent(
            KafkaSettings(),
            SETTINGS,
            server=self.server,
            producer=self.producer,
            lifecycle=Lifecycle("sim"),
            status=NoStatus(),
        )
        self.parent._clock = lambda: self.now_s

    def _connect(self, *_):
        self.consumers.append(SimConsumer(self))
        return self.consumers[-1]

    @property
    def consumer(self):
        return self.consumers[-1]

    def run(self):
        try:
            self.parent._join()
            for _ in range(FAULTY_TURNS):
                self.fault()
                self.turn()
            self.end_faults()
            self.become_quiet()
            self.check_condemned()
        except ViolationError as violation:
            raise ViolationError(f"seed {self.seed}: {violation}") from violation
        finally:
            self.parent.on_lost(list(self.parent._partitions))

    def become_quiet(self):
        for _ in range(QUIET_TURNS):
            self.turn()
            if self.is_finished():
                return
        raise ViolationError(f"nothing moves: committed {self.broker.committed}")

    def turn(self):
        self.now_s += TURN_S
        self.parent._turn(self.now_s)
        for worker in self.server.alive():
            for _ in range(self.dice.randint(0, 4)):
                if not worker.is_dead:
                    worker.step()

    def fault(self):
        if self.dice.random() < 0.3:
            self.dice.choice(FAULTS)(self)

    def end_faults(self):
        self.sink_is_down, self.broker.dead.up, self.consumer.commits_fail = False, True, 0
        self.callback_between.clear()
        self.consumer.callbacks.append(lambda: self.consumer.assign(range(PARTITIONS)))

    def is_finished(self):
        return all(
            (self.broker.committed[p] or 0) >= RECORDS or self.broker.start[p] >= RECORDS for p in range(PARTITIONS)
        )

    def check_condemned(self):
        for number in range(PARTITIONS):
            for offset, headers in self.broker.dead_letters(number).items():
                value = self.broker.values[number][offset]
                if value == b"good" and self.kills < 3:
                    raise ViolationError(f"partition {number}: good record {offset} was given up: {headers}")

    # Faults

    def kill_a_worker(self):
        if alive := self.server.alive():
            self.kills += 1
            self.dice.choice(alive).die()

    def sink_falls_or_returns(self):
        self.sink_is_down = not self.sink_is_down

    def dead_letters_stall_or_flow(self):
        self.broker.dead.up = not self.broker.dead.up

    def commits_are_refused(self):
        self.consumer.commits_fail = self.dice.randint(1, 3)

    def client_fails(self):
        self.consumer.fails = True

    def rebalance(self):
        """Lose some partitions, maybe to one who goes on with them, and get them back, maybe within one call."""
        consumer, number = self.consumer, self.dice.randrange(PARTITIONS)
        lost = self.dice.random() < 0.4
        work = self.dice.randint(0, 10)

        def there_and_back():
            consumer.take_away([number], lost=lost)
            self.other_works(number, work)
            consumer.assign([number])

        if self.dice.random() < 0.5:
            self.callback_between.append(there_and_back)
        else:
            consumer.callbacks.append(there_and_back)

    def other_works(self, number, count):
        at = self.broker.committed[number] or self.broker.start[number]
        while count and at < RECORDS and self.broker.values[number][at] == b"good":
            self.broker.durable[number].add(at)
            at, count = at + 1, count - 1
        if at > self.broker.start[number]:
            self.broker.commit({number: at})

    def retention(self):
        number = self.dice.randrange(PARTITIONS)
        at = self.broker.start[number] + self.dice.randint(1, 20)
        self.broker.retention(number, min(RECORDS - 1, at))

    def ring_breaks(self):
        if partitions := list(self.parent._partitions.values()):
            ring = self.dice.choice(partitions).ring
            if ring.used_bytes:
                index = ring.freed % ring.capacity_bytes
                ring._map[index : index + 8] = b"\x01" * 8


FAULTS = [
    Simulation.kill_a_worker,
    Simulation.sink_falls_or_returns,
    Simulation.dead_letters_stall_or_flow,
    Simulation.commits_are_refused,
    Simulation.client_fails,
    Simulation.rebalance,
    Simulation.rebalance,
    Simulation.retention,
    Simulation.ring_breaks,
]
