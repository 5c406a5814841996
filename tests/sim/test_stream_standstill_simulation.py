"""Histories in which partitions are halted and an operator pauses, resumes and skips, among all the other faults."""

import logging

import pytest

from dmpd.stream import invalid_window, workers
from dmpd.stream.control import Request, Target
from dmpd.stream.standstill import Standstill
from tests.support.stream_sim import faults, history
from tests.support.stream_sim.broker import PARTITIONS, ViolationError
from tests.support.stream_sim.history import Simulation


class Operated(Simulation):
    """An operator who does anything at any time, and in the end what is needed."""

    def __init__(self, seed, monkeypatch):
        super().__init__(seed, monkeypatch)
        self.halts = self.skips = self.pauses = 0
        self._before = {}

    def fault(self, faults):
        super().fault(faults)
        if self.dice.random() < 0.15 and not self.frozen_turns:  # a frozen parent takes no orders
            self.order(self.dice.choice(["pause", "resume", "resume", "skip"]), self.dice.randrange(PARTITIONS))

    def order(self, verb, number):
        if number in self.parent._partitions:
            request = Request(verb, Target(partition=number))
            partitions = self.parent._partitions
            result = self.parent._operations._carry_out(request, partitions, is_draining=False)[number]
            self.parent._round_at_s = self.parent._look_at_s = (
                0.0  # orders are carried out in a look, and it goes on from there
            )
            self.skips += result.changed and verb == "skip"
            self.pauses += result.changed and verb == "pause"

    def turn(self):
        super().turn()
        self._check()

    def finish(self):
        for _ in range(history.QUIET_TURNS):
            self.turn()
            for number, partition in self.parent._partitions.items():
                if partition.standstill.state == "halted":
                    self.order(self.dice.choice(["resume", "skip"]), number)
                elif partition.standstill.state == "paused":  # also one that was, while a client was replaced
                    self.order("resume", number)
            if all(map(self.broker.is_finished, self.broker.values)):
                return
        raise ViolationError(f"nothing moves: committed {self.broker.committed}")

    def _check(self):
        now = {
            n: (p.epoch, p.standstill.state, p.ledger.placed_records, p.ledger.released_records)
            for n, p in self.parent._partitions.items()
        }
        for number, (epoch, state, placed, released) in now.items():
            old = self._before.get(number, (None, "running", 0, 0))
            self.halts += state == "halted" and old[1] != "halted"
            if state == "halted" and any(worker.partition == number for worker in self.server.alive()):
                raise ViolationError(f"partition {number} is halted and has a worker")
            if (epoch, state) == old[:2] and state == "halted" and (placed, released) != old[2:]:
                raise ViolationError(f"partition {number} is halted and moves")
            if (epoch, state) == old[:2] and state == "paused" and placed != old[2]:
                raise ViolationError(f"partition {number} is paused and is fetched")
        self._before = now

    def check_end(self):
        """A skipped record may be a good one."""
        for number in range(PARTITIONS):
            for offset, (_, headers) in self.broker.dead_letters(number).items():
                good = self.broker.values[number][offset] == b"good"
                if good and self.kills < 3 and headers["dmpd-reason"] != b"skipped":
                    raise ViolationError(f"partition {number}: good record {offset} was given up: {headers}")


@pytest.fixture(autouse=True)
def _easily_halted(monkeypatch):
    logging.disable(logging.CRITICAL)
    monkeypatch.setattr(invalid_window, "RECORDS", 20)
    monkeypatch.setattr(invalid_window, "INVALID_MAX", 1)
    monkeypatch.setattr(invalid_window, "SOURCES_MIN", 1)
    yield
    logging.disable(logging.NOTSET)


def run(seeds):
    halts = skips = pauses = 0
    for seed in seeds:
        with pytest.MonkeyPatch.context() as patch:
            simulation = Operated(seed, patch)
            simulation.run(faults.ALL)
        halts, skips, pauses = halts + simulation.halts, skips + simulation.skips, pauses + simulation.pauses
    return halts, skips, pauses


def test_nothing_is_lost_by_halts_pauses_and_skips():
    halts, skips, pauses = run(range(40))
    assert min(halts, skips, pauses) >= 5, (halts, skips, pauses)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_by_many_halts_pauses_and_skips():
    run(range(40, 250))


MUTATIONS = {
    "a halted partition gets a worker": (Standstill, "is_halted", property(lambda self: False)),
    "a partition that stands still is fetched": (Standstill, "holds_fetching", property(lambda self: False)),
    "the worker of a halted partition lives on": (workers.Workers, "silence", lambda self, partition: None),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_rule_that_is_removed_is_missed(name, monkeypatch):
    monkeypatch.setattr(*MUTATIONS[name])
    monkeypatch.setattr(history, "QUIET_TURNS", 300)
    with pytest.raises((ViolationError, AssertionError)):
        run(range(40))
