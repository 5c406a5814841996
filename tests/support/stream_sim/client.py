"""Kafka's client as a member of the group sees it: callbacks inside ``poll`` and ``consume``, answers later."""

from confluent_kafka import KafkaError, KafkaException, Message

from dmpd.stream.watermarks import Answer
from tests.support.stream_sim.broker import RECORD_BYTES, ViolationError


class SimWatermarks:
    """Answers at once, what is so. Markers of transactions at the log's end count as offsets."""

    every_s = 1.0

    def __init__(self, sim):
        self._sim = sim

    @property
    def answer(self):
        ends = {n: len(values) + self._sim.markers_at_the_end for n, values in self._sim.broker.values.items()}
        return Answer(self._sim.now_s, ends, dict(self._sim.broker.start))

    def fresh(self, now_s):
        return self.answer

    def watch(self, partitions, starts):
        return

    def stop(self, timeout_s):
        return True


class SimConsumer:
    """``take_away`` and ``assign`` are what a rebalance does; to be called by callbacks.

    ``held``: by partition, up to where it has fetched: retention does not take that from it.
    """

    def __init__(self, sim):
        self.sim, self.broker = sim, sim.broker
        self.positions, self.paused, self.commits, self.callbacks = {}, set(), [], []
        self.fetch_positions, self.stalled, self.held = self, set(), {}
        self.fails, self.commits_fail, self.abandoned = False, 0, False

    def subscribe(self):
        self.callbacks.append(lambda: self.assign(self.broker.values))

    def assign(self, numbers):
        fresh = [n for n in numbers if n not in self.positions]
        committed = {n: self.broker.committed[n] for n in fresh}
        for number, offset in committed.items():
            self.positions[number] = self.broker.start[number] if offset is None else offset
        self.paused -= set(fresh)
        self.sim.parent.on_assigned(committed)

    def take_away(self, numbers, *, lost):
        owned = [n for n in numbers if n in self.positions]
        (self.sim.parent.on_lost if lost else self.sim.parent.on_revoked)(owned)
        for worker in self.sim.server.alive():
            if worker.partition in owned:
                raise ViolationError(f"partition {worker.partition} went while its worker lived")
        for number in owned:
            del self.positions[number]
            self.stalled.discard(number)
            self.held.pop(number, None)

    def poll(self, timeout_s):
        if self.fails:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        self._serve()
        found = self._take(1)
        return found[0] if found else None

    def consume(self, records_max):
        self._serve()
        return self._take(min(self.sim.consume_max, self.sim.dice.randint(0, records_max)))

    def _serve(self):
        while self.callbacks:
            self.callbacks.pop(0)()
        if self.commits and self.sim.dice.random() < 0.7:
            self._answer(*self.commits.pop(0))
        if self.sim.callback_between:
            self.callbacks.append(self.sim.callback_between.pop())

    def _answer(self, generation, offsets):
        if generation != self.broker.generation:
            self.sim.parent.on_committed({}, asked=offsets)
        elif self.commits_fail > 0:
            self.commits_fail -= 1
            self.sim.parent.on_committed({}, asked=offsets)
        else:
            self._take_commit(offsets)
            self.sim.parent.on_committed(offsets, asked=offsets)

    @property
    def offsets(self):
        """Its statistics: the fetch position passes markers, the application's does not."""
        ends = {n: len(values) for n, values in self.broker.values.items()}
        markers = self.sim.markers_at_the_end
        return {n: p + markers * (p == ends[n]) for n, p in self.positions.items() if p is not None}

    def _take(self, count):
        found, numbers = [], list(self.positions)
        if self.sim.dice.random() < 0.5:
            numbers.reverse()
        for number in numbers:
            position = self.positions[number]
            if number in self.paused | self.stalled or position is None or len(found) >= count:
                continue
            start = self.broker.start[number]
            there = len(self.broker.values[number]) if position >= start else self.held.get(number, position)
            stop = max(position, min(there, position + count - len(found)))
            found += [self._message(number, n) for n in range(position, stop)]
            self.positions[number] = stop
            if stop < start and len(found) < count:  # in the same call as what it held, as the real one does
                self.positions[number] = None
                error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
                found.append(Message(topic="t", partition=number, offset=-1, error=error))
        return found

    def _message(self, number, n):
        value = self.broker.values[number][n]
        return Message(
            topic="t", partition=number, offset=n, key=b"k%d" % n, timestamp=(1, 1), value=value.ljust(RECORD_BYTES)
        )

    def log_end(self, partition):
        return len(self.broker.values[partition])

    def pause(self, partitions):
        self.paused |= set(partitions)
        for number in partitions:  # the real one throws away what it held
            self.held.pop(number, None)

    def resume(self, partitions):
        self.paused -= set(partitions)

    def seek(self, partition, offset):
        self.positions[partition] = offset
        self.held.pop(partition, None)

    def start_at(self, partition, offset):
        self.positions[partition] = self.broker.start[partition] if offset is None else offset
        self.held.pop(partition, None)
        self.paused.discard(partition)
        self.stalled.discard(partition)

    def unpause_at(self, partition, offset):
        self.resume([partition])
        self.seek(partition, offset)

    def wake(self, partitions):
        return

    def commit(self, offsets):
        for number in offsets:
            if number not in self.positions:
                raise ViolationError(f"partition {number} committed without being owned")
        self.commits.append((self.broker.generation, dict(offsets)))

    def commit_confirmed(self, offsets, timeout_s):
        if self.commits_fail > 0:
            self.commits_fail -= 1
            return False
        self._take_commit(offsets)
        return True

    def _take_commit(self, offsets):
        self.broker.commit(offsets)
        self.broker.answered.update(offsets)

    def close_bounded(self, timeout_s):
        return True

    def abandon(self):
        self.abandoned = True
