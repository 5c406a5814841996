"""Histories that broke an earlier text of the stream's design, replayed: the rule that stopped each holds.

| history | test |
|---|---|
| a call's records, its partition lost and assigned again inside it | a_record_of_an_old_assignment_in_the_same_call |
| two full partitions each keep the rest of a call | two_full_partitions_keep_to_their_bounds |
| a record hangs its worker: stuck, reset, same record | one record costs itself alone [hanging] |
| one kill from outside with one record in the ring | two_kills_condemn_nothing, kills_while_it_waits_… |
| stuck while ``waiting_sink``: never healed | one record costs itself alone [silent] |
| rings empty, dead letters undelivered, or the last commit failed: exit 0 | a_drain_waits_for_… (two) |
| a draining parent is given a partition and resumes it | a_draining_parent_fetches_nothing_of_what_it_is_given |
| dead-letter producer down: copies pile up | dead_letters_wait_in_the_ring_and_need_no_copy |
| retention passes the fetch position, the ring is thrown away | retention_behind_the_ring_costs_only_what_is_gone |
| ``resume`` of a halted partition halts again at once | halted_stays_until_an_operator_says_so |
| a late commit of a zombie pulls the offset back | a_late_commit_of_a_former_owner_is_undone |
| control records at the tail: reset for ever | markers_at_the_end_of_the_log_are_no_stall |
| fork server dead, its workers live on | a_dead_fork_servers_workers_die_before_others_start |
| killed at revoke, the callback returns before it is dead | no_worker_outlives_its_partition |
| the high mark 0 while the rate is measured | tests/property/test_stream_release_rate.py |
| parent killed, worker hung (PR_SET_PDEATHSIG) | tests/process/test_stream_parent.py |
| 57014 twice, a flapping database, release by frames after fold and sort | the cloud registry's, not the stream's |
"""

import logging

import pytest

from tests.support.stream_sim import scenarios, scenarios_drain
from tests.support.stream_sim.history import Simulation


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(values):
        made.append(Simulation(7, monkeypatch, values=values))
        return made[-1]

    logging.disable(logging.CRITICAL)
    yield make
    for sim in made:
        sim.clear()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("scenario", scenarios.ALL + scenarios_drain.ALL, ids=lambda scenario: scenario.__name__)
def test_it_no_longer_breaks_a_promise(scenario, make):
    scenario(make)


@pytest.mark.parametrize("kind", [b"hanging", b"silent", b"deadly", b"raising"], ids=bytes.decode)
def test_one_record_costs_itself_alone(kind, make):
    scenarios.one_record(kind)(make)


def test_halted_stays_until_an_operator_says_so(make, monkeypatch):
    scenarios.halted_stays_until_an_operator_says_so(make, monkeypatch)
