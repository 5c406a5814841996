"""Histories of the stream under every fault at once, decided by seeds, and rules whose removal they catch.

A failing seed names itself; ``DMPD_SIM_SEED=N pytest tests/sim/test_stream_simulation.py`` replays that one.
"""

import logging
import os

import pytest

from dmpd.stream import fork_server, suspicion, watchdog, workers
from dmpd.stream.flow import Flow
from dmpd.stream.ledger import Ledger
from dmpd.stream.parent import Parent
from tests.support import stream_sim
from tests.support.stream_sim import Simulation, ViolationError


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(seeds):
    for seed in seeds:
        with pytest.MonkeyPatch.context() as patch:
            Simulation(seed, patch).run()


def seeds(first, stop):
    replayed = os.environ.get("DMPD_SIM_SEED")
    return range(first, stop) if replayed is None else [int(replayed)]


@pytest.mark.parametrize("first", range(0, 500, 125))
def test_no_history_breaks_a_promise(first):
    run(seeds(first, first + 125))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_history_of_many_breaks_a_promise():
    run(seeds(500, 2500))


def no_hold(self, position=None):
    return 0


MUTATIONS = {
    "commit past a dead letter": (Ledger, "hold", no_hold, {(Ledger, "end_hold"): lambda self, ticket: None}),
    "release before the sink has it": (stream_sim.SimWorker, "release_early", True, {}),
    "no epoch check of fetched records": (
        Parent,
        "_current_epochs",
        lambda self: dict.fromkeys(self._partitions, 0),
        {},
    ),
    "no seek after a refusal": (Flow, "resumed", lambda self, now_s: setattr(self, "paused", False), {}),
    "no taking apart after deaths": (suspicion.Suspicion, "died", lambda self, offered: False, {}),
    "the first death alone condemns": (suspicion, "DEATHS_ALONE_MAX", 1, {}),
    "nobody watches for stuck workers": (watchdog.Watchdog, "is_stuck", lambda self, now_s, **_: False, {}),
    "a corrupted ring is kept": (Parent, "_heal", lambda self, now_s: None, {}),
    "the next worker starts where the ring ends": (
        workers,
        "Fork",
        lambda number, frame, nth, *bounds: fork_server.Fork(number, frame + 928 if frame else 0, 0, *bounds),
        {},
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_rule_that_is_removed_is_missed(name, monkeypatch):
    owner, attribute, replacement, others = MUTATIONS[name]
    monkeypatch.setattr(owner, attribute, replacement)
    for (other, its), value in others.items():
        monkeypatch.setattr(other, its, value)
    monkeypatch.setattr(stream_sim, "QUIET_TURNS", 600)
    with pytest.raises((ViolationError, AssertionError)):
        run(range(300))
