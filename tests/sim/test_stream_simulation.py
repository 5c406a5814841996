"""Histories of the stream under every fault at once, decided by seeds.

A failing seed names itself; ``DMPD_SIM_SEED=N pytest tests/sim/test_stream_simulation.py -k "[0]"`` replays that one.
"""

import logging
import os
import random

import pytest

from tests.support.stream_sim import faults
from tests.support.stream_sim.history import Simulation, simulate


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_no_history_breaks_a_promise(first):
    run(range(first, first + 250))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(2000, 12_000, 2000))
def test_no_history_of_many_breaks_a_promise(first):
    run(range(first, first + 2000))


class Told(Simulation):
    """Notes after each turn where everything stands."""

    def __init__(self, *arguments):
        self.told = []
        super().__init__(*arguments)

    def turn(self):
        super().turn()
        partitions = self.parent._partitions.values()
        self.told.append(
            (
                self.now_s,
                [(p.number, p.epoch, p.ring.published, p.ledger.released, p.ledger.frontier) for p in partitions],
                [worker.partition for worker in self.server.alive()],
                dict(self.broker.committed),
            )
        )


def test_a_seed_tells_the_whole_history():
    """Whatever the process did before: chance that it used up, descriptors that it opened. Else no seed replays."""
    logging.disable(logging.CRITICAL)
    try:
        for seed in range(30):
            first = told(seed)
            random.seed(seed)
            with open(os.devnull), open(os.devnull):  # noqa: PTH123 - a descriptor each
                assert told(seed) == first, f"seed {seed}"
    finally:
        logging.disable(logging.NOTSET)


def told(seed):
    with pytest.MonkeyPatch.context() as patch:
        sim = Told(seed, patch)
        sim.run(faults.ALL, drains=seed % 3 == 0)
        return sim.told


def run(seeds):
    replayed = os.environ.get("DMPD_SIM_SEED")
    for seed in seeds if replayed is None else [int(replayed)]:
        try:
            simulate(seed, faults.ALL)
        except Exception as error:
            command = f'DMPD_SIM_SEED={seed} .venv/bin/pytest -k "[0]" tests/sim/test_stream_simulation.py'
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\nreplays with: {command}") from error
