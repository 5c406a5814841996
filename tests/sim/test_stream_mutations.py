"""Each rule of the stream, removed: a history misses it. So no rule is there for nothing, and none goes unseen.

Not here, because no history of one parent needs them, and where they are shown instead:

- two marks: they save pauses, each of which throws the client's prefetch away; tests/unit/stream/test_stream_flow.py
- marks in time: they make a drain fit its deadline, which holds anyway; tests/property/test_stream_release_rate.py
- resume in on_assign: the pause flag is the real client's; tests/process/test_stream_parent.py
- a channel per life: a death shows by the channel's end, at once; tests/process/test_stream_worker_deaths.py
- source limit: it bounds the letters' topic, nothing is lost without; tests/unit/stream/test_stream_source_limits.py
- fold taken apart: the cloud registry's
"""

import gc
import logging
from functools import partial

import pytest
from msgspec import structs

from dmpd.runtime.lifecycle import Lifecycle
from dmpd.stream import suspicion
from dmpd.stream.committer import Committer
from dmpd.stream.drain import Drain
from dmpd.stream.flow import Flow
from dmpd.stream.intake import Intake
from dmpd.stream.invalid_window import InvalidWindow
from dmpd.stream.ledger import Ledger
from dmpd.stream.parent import Parent
from dmpd.stream.partition import Partition
from dmpd.stream.standstill import Standstill
from dmpd.stream.watchdog import Watchdog
from dmpd.stream.worker_life import WorkerLife
from dmpd.stream.workers import Workers
from tests.support.stream_sim import faults, history, scenarios, scenarios_drain
from tests.support.stream_sim.client import SimConsumer
from tests.support.stream_sim.ends import EndedError
from tests.support.stream_sim.history import Simulation
from tests.support.stream_sim.workers import SimWorker

SEEDS = range(150)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def nothing(*_, **__):
    return None


def property_of(value):
    return property(lambda self: value)


def no_hold(self, position=None):
    return 0


def commit_of_all_placed(self):
    """As if what is published were handled."""
    candidate = Partition_candidate(self)
    return candidate and candidate._replace(offset=self.next_to_place or candidate.offset, passed_records=10**6)


def reset_at_the_end(self, number, **why):
    ledger = self._partitions[number].ledger
    ledger.next_offset = self._partitions[number].next_to_place or ledger.next_offset
    return Parent_reset(self, number, **why)


def forget_life(self, partitions):
    for one in partitions:
        one.life = None


def end_unheard(self, partition):
    partition.life.confirm_death()
    self._close_life(partition)


def answered_whatever(self, asked, taken):
    return Committer_answered(self, asked, asked)


def assigned_while_draining(self, next_offsets):
    drain, self._drain = self._drain, None
    Parent_on_assigned(self, next_offsets)
    self._drain = drain


def out_of_range_resets(self, message, consumer, *, is_draining):
    self._partitions[message.partition()].corruption = "out of range"  # what the parent resets


def excused_for_ever(self, now_s, *, fed, released):
    return Watchdog_is_stuck(self, now_s, fed=fed and not self.is_waiting, released=released)


def never_excused(self):
    self.is_waiting = True


def new_if_higher(self, partition, candidate):
    known = self._committed.get(partition)
    return known is None or known.offset < candidate.offset


def free_to_released(self):
    if self.ledger.released.frame > self.ring.freed:
        self.ring.free_to(self.ledger.released.frame)
    return 0


def server_replaced_alone(self, partitions, now_s):
    for one in partitions:
        one.life = None
    self._server.start()


def drained_when_rings_are_empty(self):
    return all(p.ledger.is_released for p in self._partitions.values())


Partition_candidate, Parent_reset, Parent_on_assigned = Partition.candidate, Parent.reset, Parent.on_assigned
Committer_answered, Watchdog_is_stuck = Committer.answered, Watchdog.is_stuck

MUTATIONS = {
    "release only when durable": (None, [(SimWorker, "release_early", True)]),
    "verdict before release": (None, [(SimWorker, "verdict_late", True)]),
    "release before commit": (None, [(Partition, "candidate", commit_of_all_placed)]),
    "hold for dead letters": (None, [(Ledger, "hold", no_hold), (Ledger, "end_hold", nothing)]),
    "space freed up to the frontier": (
        scenarios.dead_letters_wait_in_the_ring_and_need_no_copy,
        [(Partition, "free", free_to_released)],
    ),
    "R from the old channel read to its end": (None, [(Workers, "_end_life", end_unheard)]),
    "position = frontier after a reset": (None, [(Parent, "reset", reset_at_the_end)]),
    "lost range reported": (
        scenarios.retention_behind_the_ring_costs_only_what_is_gone,
        [(Partition, "take_loss", lambda self, first_offset: 0)],
    ),
    "out of range keeps the ring": (
        scenarios.retention_behind_the_ring_costs_only_what_is_gone,
        [(Intake, "_on_error", out_of_range_resets)],
    ),
    "start after death": (None, [(WorkerLife, "kill", nothing), (WorkerLife, "confirm_death", nothing)]),
    "kill at revoke": (scenarios.no_worker_outlives_its_partition, [(Workers, "kill", forget_life)]),
    "no resume while draining": (
        scenarios_drain.a_draining_parent_fetches_nothing_of_what_it_is_given,
        [(Parent, "on_assigned", assigned_while_draining)],
    ),
    "records by epoch": (None, [(Intake, "_current_epochs", lambda self: dict.fromkeys(self._partitions, 0))]),
    "commits by epoch": (
        scenarios_drain.a_new_assignment_commits_anew,
        [(Committer, "forget", nothing), (Committer, "_is_new", new_if_higher)],
    ),
    "watchdog": (scenarios.one_record(b"hanging"), [(Watchdog, "is_stuck", lambda self, now_s, **_: False)]),
    "waiting_sink excuses": (
        scenarios.an_outage_of_ten_minutes_heals_by_itself,
        [(Watchdog, "said_waiting", never_excused)],
    ),
    "waiting_sink must be repeated": (scenarios.one_record(b"silent"), [(Watchdog, "is_stuck", excused_for_ever)]),
    "only while handling": (
        scenarios.kills_while_it_waits_for_its_sink_condemn_nothing,
        [(WorkerLife, "accuses", property_of(value=True))],
    ),
    "commit retry": (None, [(Committer, "answered", answered_whatever)]),
    "commit again every 30 s": (
        scenarios.a_late_commit_of_a_former_owner_is_undone,
        [(history, "SETTINGS", structs.replace(history.SETTINGS, commit_repeat_s=1e6))],
    ),
    "second TERM": (scenarios_drain.a_second_term_ends_at_once, [(Lifecycle, "second_stop", property_of(value=False))]),
    "deadline": (scenarios_drain.a_drain_ends_at_its_deadline_with_a_dead_sink, [(Drain, "enforce", nothing)]),
    "drain ends with the answered commit": (
        scenarios_drain.a_drain_waits_for_the_answer_to_its_commit,
        [(Parent, "_is_drained", drained_when_rings_are_empty)],
    ),
    "drain waits for dead letters": (
        scenarios_drain.a_drain_waits_for_dead_letters,
        [(Parent, "_is_drained", drained_when_rings_are_empty)],
    ),
    "halving": (scenarios.one_record(b"deadly"), [(suspicion.Suspicion, "died", lambda self, offered: False)]),
    "the third death alone": (scenarios.two_kills_condemn_nothing, [(suspicion, "DEATHS_ALONE_MAX", 1)]),
    "halted stays": ("halted", [(Standstill, "is_halted", property_of(value=False))]),
    "resume clears the window": ("halted", [(InvalidWindow, "clear", nothing)]),
    "what does not fit is sought again": (
        None,
        [(Flow, "resumed", lambda self, now_s: setattr(self, "paused", False))],
    ),
    "a corrupted ring is fetched anew": (None, [(Parent, "_heal", nothing)]),
    "fetching that stopped is begun anew": (
        scenarios.fetching_that_stopped_silently_is_begun_anew,
        [(Parent, "_keep_watch", nothing)],
    ),
    "judged by the fetch position": (
        scenarios.markers_at_the_end_of_the_log_are_no_stall,
        [(SimConsumer, "offsets", property(lambda self: self.positions))],
    ),
    "a dead fork server's workers are killed": (
        scenarios.a_dead_fork_servers_workers_die_before_others_start,
        [(Workers, "_replace_server", server_replaced_alone)],
    ),
}


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("rule", MUTATIONS)
def test_a_rule_that_is_removed_is_missed(rule, monkeypatch):
    scenario, patches = MUTATIONS[rule]
    for owner, attribute, replacement in patches:
        monkeypatch.setattr(owner, attribute, replacement)
    monkeypatch.setattr(history, "QUIET_TURNS", 300)
    missed = what_breaks(scenario)
    gc.collect()  # what broke off half way lets go of its sockets here
    assert missed is not None
    assert issubclass(missed, (AssertionError, EndedError)), f"no promise, the mutation itself: {missed}"


def what_breaks(scenario):
    try:
        run(scenario)
    except Exception as error:
        return type(error)
    return None


def run(scenario):
    if scenario is None:
        for seed in SEEDS:
            history.simulate(seed, faults.ALL)
        return
    with pytest.MonkeyPatch.context() as patch:
        if scenario == "halted":
            scenario = partial(scenarios.halted_stays_until_an_operator_says_so, patch=patch)
        scenario(lambda values: Simulation(7, patch, values=values))
