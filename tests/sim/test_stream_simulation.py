"""Histories of the stream under every fault at once, decided by seeds.

A failing seed names itself; ``DMPD_SIM_SEED=N pytest tests/sim/test_stream_simulation.py -k "[0]"`` replays that one.
"""

import os

import pytest

from tests.support.stream_sim import faults
from tests.support.stream_sim.history import simulate


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_no_history_breaks_a_promise(first):
    run(range(first, first + 250))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(2000, 12_000, 2000))
def test_no_history_of_many_breaks_a_promise(first):
    run(range(first, first + 2000))


def run(seeds):
    replayed = os.environ.get("DMPD_SIM_SEED")
    for seed in seeds if replayed is None else [int(replayed)]:
        try:
            simulate(seed, faults.ALL)
        except Exception as error:
            command = f'DMPD_SIM_SEED={seed} .venv/bin/pytest -k "[0]" tests/sim/test_stream_simulation.py'
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\nreplays with: {command}") from error
