"""One history: turns of the parent, steps of the workers, faults between them, until all is handled and committed."""

import logging
import random
from types import SimpleNamespace

import pytest

from dmpd.runtime.kafka_memory import MemoryProducer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import drain as drain_module
from dmpd.stream import gathering as gathering_module
from dmpd.stream import intake as intake_module
from dmpd.stream import parent as parent_module
from dmpd.stream import partition as partition_module
from dmpd.stream import worker_life
from dmpd.stream import workers as workers_module
from dmpd.stream.settings import StreamSettings
from tests.support.stream_sim.broker import Broker, ViolationError
from tests.support.stream_sim.client import SimConsumer, SimWatermarks
from tests.support.stream_sim.ends import EndedError, check_letters, drain
from tests.support.stream_sim.workers import SimServer

TURN_S = 0.25
QUIET_TURN_S = 1.0
FAULTY_TURNS = range(6, 28)
QUIET_TURNS = 900
SETTINGS = StreamSettings(
    topic="t",
    dead_letter_topic="d",
    ring_bytes=1 << 16,
    max_record_bytes=16384,
    batch_records_max=8,
    consume_records_max=20,
    revoke_timeout_s=0.1,
    stuck_timeout_s=2.0,
    sink_silence_timeout_s=4.0,
    fetch_silence_timeout_s=6.0,
)


class NoStatus:
    """Nobody looks."""

    def publish(self, *_, **__):
        return


class Simulation:
    """``run`` raises ``ViolationError`` with the seed. A test with a script calls ``turns`` and ``until``."""

    def __init__(self, seed, monkeypatch, *, values=None):
        self.seed, self.dice = seed, random.Random(seed)
        self.broker = Broker.of(self.dice) if values is None else Broker(values)
        self.server, self.now_s = SimServer(self), 1000.0
        self.sink_is_down, self.sink_is_flaky, self.sink_slowness = False, False, 0
        self.callback_between, self.kills, self.frozen_turns, self.workers_stand = [], 0, 0, False
        self.consumers, self._moved = [], True
        self.markers_at_the_end, self.consume_max = 0, 1000
        clock = SimpleNamespace(monotonic=lambda: self.now_s, sleep=lambda _: None)
        for module in (parent_module, workers_module, drain_module, intake_module):
            monkeypatch.setattr(module, "time", clock)
        for module in (parent_module, partition_module, workers_module):  # their jitter is the seed's too
            monkeypatch.setattr(module, "random", self.dice)
        monkeypatch.setattr(drain_module, "exit_now", self._exit)
        monkeypatch.setattr(parent_module, "exit_now", self._exit)
        monkeypatch.setattr(parent_module, "StreamConsumer", self._connect)
        monkeypatch.setattr(parent_module, "_STATUS_EVERY_S", 2.0)
        monkeypatch.setattr(parent_module, "_WATCH_EVERY_S", 2.0)
        pauses_s = (0.0, 2 * TURN_S, 8 * TURN_S) if values is None else (0.0,)
        monkeypatch.setattr(gathering_module, "PAUSE_S", random.Random(seed).choice(pauses_s))
        monkeypatch.setattr(worker_life.signal, "pidfd_send_signal", self.server.kill)
        monkeypatch.setattr(worker_life.death, "oom_kills", int)
        monkeypatch.setattr(workers_module, "wait", self._wait)
        self.start()

    def start(self):
        """Begin a process; what an earlier one left is Kafka's and the sink's."""
        self.lifecycle = Lifecycle("sim")
        self.parent = parent_module.Parent(
            KafkaSettings(),
            SETTINGS,
            server=self.server,
            producer=MemoryProducer(self.broker.dead),
            lifecycle=self.lifecycle,
            status=NoStatus(),
            stop_watch=drain_module.StopWatch(self.lifecycle, timeout_s=SETTINGS.drain_timeout_s),
        )
        self.parent._lookout._watermarks = SimWatermarks(self)
        self.parent._join()

    def die(self):
        """The parent is killed: the kernel ends its workers, what was not committed goes back."""
        for worker in self.server.alive():
            worker.die()
        self.broker.generation += 1
        self.clear()

    def clear(self):
        """Free what the parent holds."""
        self.consumer.callbacks.clear()
        self.parent.on_lost(list(self.parent._partitions))
        self.consumer.positions.clear()

    def _connect(self, *_):
        self.consumers.append(SimConsumer(self))
        return self.consumers[-1]

    def _exit(self, code):
        raise EndedError(code)

    def _wait(self, _partitions, timeout_s):
        """While the parent waits, time passes and workers work."""
        self.now_s += timeout_s
        self.step_workers()

    @property
    def consumer(self):
        return self.consumers[-1]

    def sink_fails(self):
        return self.sink_is_down or (self.sink_is_flaky and self.dice.random() < 0.5)

    # Running

    def run(self, faults, *, drains=False):
        try:
            for _ in range(self.dice.choice(FAULTY_TURNS)):
                self.fault(faults)
                self.turn()
            if drains:
                drain(self, faults)
                self.start()
            self.end_faults()
            self.finish()
            self.check_end()
        except ViolationError as violation:
            raise ViolationError(f"seed {self.seed}: {violation}") from violation
        finally:
            self.clear()

    def fault(self, faults):
        if self.dice.random() < 0.35:
            self.dice.choice(faults)(self)

    def check_end(self):
        check_letters(self)

    def turn(self):
        self.now_s += TURN_S if self._moved else QUIET_TURN_S
        before = self._progress()
        if self.frozen_turns > 0:
            self.frozen_turns -= 1
        else:
            self.parent._turn(self.now_s)
        self.step_workers()
        self._moved = self._progress() != before

    def _progress(self):
        partitions = self.parent._partitions.values()
        return [(p.ring.published, p.ledger.released, p.life and p.life.pid) for p in partitions]

    def step_workers(self):
        if self.workers_stand:
            return
        for worker in self.server.alive():
            for _ in range(int(self.dice.random() * 6)):
                if not worker.step():
                    break

    def turns(self, count):
        for _ in range(count):
            self.turn()

    def until(self, holds, turns=QUIET_TURNS):
        for _ in range(turns):
            if holds():
                return
            self.turn()
        raise ViolationError(f"nothing moves: committed {self.broker.committed}, in {turns} turns")

    def finish(self):
        """No faults any more: all is handled, and the commits stand."""
        self.until(lambda: all(map(self.broker.is_finished, self.broker.values)))

    def end_faults(self):
        self.sink_is_down = self.sink_is_flaky = self.workers_stand = False
        self.sink_slowness = self.frozen_turns = self.consumer.commits_fail = 0
        self.broker.dead.up = True
        self.callback_between.clear()
        self.consumer.callbacks.append(lambda: self.consumer.assign(self.broker.values))


def simulate(seed, faults):
    """One history of ``faults``; every third is drained, and another process goes on. Says nothing in the log."""
    logging.disable(logging.CRITICAL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            Simulation(seed, patch).run(faults, drains=seed % 3 == 0)
    finally:
        logging.disable(logging.NOTSET)
