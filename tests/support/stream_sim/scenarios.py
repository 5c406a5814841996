"""Histories with a script: those that broke an earlier text of the design (facts of its simulations, "Stream").

Each takes ``make(values)``, which makes a ``Simulation``, and raises ``AssertionError`` if a promise is broken.
"""

from dmpd.stream import invalid_window
from tests.support.stream_sim.ends import check_letters
from tests.support.stream_sim.faults import other_works

GOOD = b"good"


def a_record_of_an_old_assignment_in_the_same_call(make):
    """``poll`` returned it, ``consume`` of the same turn lost its partition and got it back further behind."""
    sim = make({0: [GOOD] * 24})
    sim.workers_stand, sim.consume_max = True, 2
    sim.turns(2)

    def there_and_back():
        sim.consumer.take_away([0], lost=True)
        sim.consumer.assign([0])

    sim.callback_between.append(there_and_back)
    sim.turn()
    sim.workers_stand = False
    sim.finish()


def two_full_partitions_keep_to_their_bounds(make):
    sim = make({0: [GOOD] * 60, 1: [GOOD] * 60})
    sim.workers_stand = True
    for _ in range(12):
        sim.turn()
        for partition in sim.parent._partitions.values():
            assert partition.used_bytes <= partition.flow.marks.high_bytes
            assert partition.ledger.open_records * 2000 <= partition.flow.marks.high_bytes
    sim.workers_stand = False
    sim.finish()


def one_record(kind):
    def costs_itself_alone(make):
        sim = make({0: [GOOD] * 9 + [kind] + [GOOD] * 9})
        sim.finish()
        assert list(sim.broker.dead_letters(0)) == [9]

    return costs_itself_alone


def two_kills_condemn_nothing(make):
    sim = make({0: [GOOD]})
    sim.sink_slowness = 1000
    for _ in range(2):
        sim.until(lambda: any(worker.batch for worker in sim.server.alive()))
        [worker] = sim.server.alive()
        worker.die()
        sim.until(lambda worker=worker: worker not in sim.server.alive())
        sim.turn()
    sim.sink_slowness = 0
    sim.finish()
    assert not sim.broker.dead_letters(0)


def kills_while_it_waits_for_its_sink_condemn_nothing(make):
    sim = make({0: [GOOD]})
    sim.sink_is_down = True
    for _ in range(6):
        sim.until(lambda: any(worker.batch for worker in sim.server.alive()))
        sim.until(lambda: sim.parent._partitions[0].life.state == "waiting_sink")
        [worker] = sim.server.alive()
        worker.die()
        sim.turn()
    sim.sink_is_down = False
    sim.finish()
    assert not sim.broker.dead_letters(0)


def an_outage_of_ten_minutes_heals_by_itself(make):
    sim = make({0: [GOOD] * 60})
    sim.sink_is_down = True
    sim.until(sim.server.alive)
    before, epoch = sim.server.alive(), sim.parent._partitions[0].epoch
    sim.turns(600)
    assert sim.server.alive() == before
    assert sim.parent._partitions[0].epoch == epoch
    sim.sink_is_down = False
    sim.finish()
    assert not sim.broker.dead_letters(0)


def dead_letters_wait_in_the_ring_and_need_no_copy(make):
    sim = make({0: [b"bad"] * 3 + [GOOD] * 57})
    sim.broker.dead.up = False
    sim.parent._outgoing._producer._queue_records_max = 0
    sim.turns(40)
    partition = sim.parent._partitions[0]
    assert partition.ring.freed == 0
    assert partition.used_bytes <= partition.ring.capacity_bytes
    sim.parent._outgoing._producer._queue_records_max = 100
    sim.broker.dead.up = True
    sim.finish()
    check_letters(sim)


def retention_behind_the_ring_costs_only_what_is_gone(make):
    sim = make({0: [GOOD] * 40})
    sim.workers_stand = True
    sim.turns(6)
    partition = sim.parent._partitions[0]
    placed = partition.next_to_place
    assert 0 < placed < 30
    sim.broker.retention(0, 35)
    sim.workers_stand = False
    sim.until(lambda: sim.broker.committed[0] == 40)
    assert sim.parent._partitions[0] is partition
    assert set(range(placed)) <= sim.broker.durable[0]
    assert partition.lost_offsets == 35 - placed


def what_the_client_had_fetched_before_retention_is_no_loss(make):
    """It hands it on in the same call as the error that it can fetch no further."""
    sim = make({0: [GOOD] * 40})
    sim.consume_max = 6
    sim.turns(3)
    partition, position = sim.parent._partitions[0], sim.consumer.positions[0]
    assert 0 < position < 20
    sim.consumer.held[0] = position + 5
    sim.broker.retention(0, 35)
    sim.consume_max = 1000
    sim.until(lambda: sim.broker.committed[0] == 40)
    assert set(range(position + 5)) <= sim.broker.durable[0]
    assert partition.lost_offsets == 35 - (position + 5)


def halted_stays_until_an_operator_says_so(make, patch):
    patch.setattr(invalid_window, "INVALID_MAX", 10)
    sim = make({0: [b"bad"] * 40, 1: [GOOD] * 24})
    sim.until(lambda: sim.parent._partitions.get(0) and sim.parent._partitions[0].standstill.state == "halted")
    judged = len(sim.broker.dead_letters(0))
    sim.turns(200)
    assert len(sim.broker.dead_letters(0)) <= judged + 8
    assert not [worker for worker in sim.server.alive() if worker.partition == 0]
    assert sim.broker.committed[1] == 24
    sim.parent._partitions[0].standstill.go_on()  # as the operator's resume does
    before = sim.broker.committed[0] or 0
    sim.until(lambda: (sim.broker.committed[0] or 0) > before + 5)


def a_late_commit_of_a_former_owner_is_undone(make):
    sim = make({0: [GOOD] * 10})
    sim.finish()
    sim.broker.lower_committed(0, 5)
    assert sim.broker.committed[0] == 5
    sim.until(lambda: sim.broker.committed[0] == 10, turns=80)


def a_frozen_parent_commits_nothing_of_what_others_took(make):
    sim = make({0: [GOOD] * 24})
    sim.consume_max = 3
    sim.turns(4)
    sim.frozen_turns, sim.broker.generation = 30, 2
    other_works(sim, 0, 20)
    taken_over = sim.broker.committed[0]

    def thaw():
        sim.consumer.take_away([0], lost=True)
        assert sim.broker.committed[0] == taken_over
        sim.consumer.assign([0])

    sim.consumer.callbacks.append(thaw)
    sim.turns(31)
    assert sim.broker.committed[0] >= taken_over
    sim.finish()


def a_dead_fork_servers_workers_die_before_others_start(make):
    sim = make({0: [GOOD] * 24, 1: [GOOD] * 24})
    sim.until(lambda: len(sim.server.alive()) == 2)
    sim.server.is_up = False
    sim.finish()


def no_worker_outlives_its_partition(make):
    sim = make({0: [GOOD] * 24, 1: [GOOD] * 24})
    sim.until(lambda: len(sim.server.alive()) == 2)
    sim.consumer.callbacks.append(lambda: sim.consumer.take_away([0], lost=False))
    sim.turns(2)
    sim.consumer.callbacks.append(lambda: sim.consumer.assign([0]))
    sim.finish()


def markers_at_the_end_of_the_log_are_no_stall(make):
    sim = make({0: [GOOD] * 10})
    sim.markers_at_the_end = 1
    sim.finish()
    epoch = sim.parent._partitions[0].epoch
    sim.turns(60)
    assert sim.parent._partitions[0].epoch == epoch


def fetching_that_stopped_silently_is_begun_anew(make):
    sim = make({0: [GOOD] * 24})
    sim.consume_max = 1
    sim.turns(2)
    sim.consumer.stalled.add(0)
    sim.finish()


def a_reset_begins_at_the_frontier(make):
    sim = make({0: [GOOD] * 24})
    sim.sink_slowness = 2
    sim.until(lambda: sim.broker.durable[0])
    sim.parent._partitions[0].corruption = "as injected"
    sim.finish()


def what_stands_still_does_so_when_another_client_joins(make):
    """A client that failed for good costs no operator's pause, no alarm and no count."""
    sim = make({0: [GOOD] * 40, 1: [GOOD] * 24})
    sim.consume_max = 2
    sim.turns(4)
    old = sim.parent._partitions[0]
    old.standstill.is_paused, old.restarts = True, 3
    sim.turns(3)
    sim.consumer.fails, sim.consume_max = True, 1000
    sim.until(lambda: len(sim.consumers) == 2 and 0 in sim.parent._partitions)
    partition = sim.parent._partitions[0]
    sim.turns(30)
    assert partition is not old
    assert (partition.standstill.state, partition.restarts) == ("paused", 3)
    assert partition.next_to_place < 40
    assert sim.broker.committed[1] == 24
    partition.standstill.is_paused = False
    sim.finish()


ALL = [
    what_stands_still_does_so_when_another_client_joins,
    a_record_of_an_old_assignment_in_the_same_call,
    two_full_partitions_keep_to_their_bounds,
    two_kills_condemn_nothing,
    kills_while_it_waits_for_its_sink_condemn_nothing,
    an_outage_of_ten_minutes_heals_by_itself,
    dead_letters_wait_in_the_ring_and_need_no_copy,
    retention_behind_the_ring_costs_only_what_is_gone,
    what_the_client_had_fetched_before_retention_is_no_loss,
    a_late_commit_of_a_former_owner_is_undone,
    a_frozen_parent_commits_nothing_of_what_others_took,
    a_dead_fork_servers_workers_die_before_others_start,
    no_worker_outlives_its_partition,
    markers_at_the_end_of_the_log_are_no_stall,
    fetching_that_stopped_silently_is_begun_anew,
    a_reset_begins_at_the_frontier,
]
