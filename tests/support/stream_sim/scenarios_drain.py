"""Histories with a script that end in a drain. See ``scenarios``."""

from tests.support.stream_sim.ends import drain

GOOD = b"good"


def a_drain_waits_for_dead_letters(make):
    sim = make({0: [GOOD] * 5 + [b"bad"]})
    sim.broker.dead.up = False
    sim.turns(6)
    assert drain(sim) == 70
    assert 5 not in sim.broker.dead_letters(0)


def a_drain_waits_for_the_answer_to_its_commit(make):
    sim = make({0: [GOOD] * 5})
    sim.consumer.commits_fail = 1_000_000
    sim.turns(3)
    assert drain(sim) == 70


def a_drain_ends_at_its_deadline_with_a_dead_sink(make):
    sim = make({0: [GOOD] * 24})
    sim.sink_is_down = True
    sim.turns(3)
    began_s = sim.now_s
    assert drain(sim) == 70
    assert sim.now_s <= began_s + 32


def a_second_term_ends_at_once(make):
    sim = make({0: [GOOD] * 24})
    sim.sink_is_down = True
    sim.turns(3)
    sim.lifecycle.stops, began_s = 1, sim.now_s
    assert drain(sim) == 70
    assert sim.now_s <= began_s + 2


def a_draining_parent_fetches_nothing_of_what_it_is_given(make):
    sim = make({0: [GOOD] * 5, 1: [GOOD] * 24})
    sim.consumer.callbacks[:] = [lambda: sim.consumer.assign([0])]
    sim.workers_stand = True
    sim.turns(3)
    sim.consumer.callbacks.append(lambda: sim.consumer.assign([1]))
    sim.workers_stand = False
    assert drain(sim) == 0
    assert sim.consumer.positions.get(1, 0) == 0


def a_drain_whose_ring_breaks_says_what_goes_back(make):
    sim = make({0: [GOOD] * 24})
    sim.sink_is_down = True
    sim.turns(3)

    def breaks(sim):
        if sim.parent._partitions[0].ledger.open_records:
            sim.parent._partitions[0].corruption = "as injected"

    assert sim.parent._partitions[0].ledger.open_records
    assert drain(sim, [breaks]) == 70


def a_new_assignment_commits_anew(make):
    """Also what an earlier one has committed: a late commit of another member pulled it back meanwhile."""
    sim = make({0: [GOOD] * 10})
    sim.finish()
    sim.broker.lower_committed(0, 5)

    def there_and_back():
        sim.consumer.take_away([0], lost=True)
        sim.consumer.assign([0])

    sim.consumer.callbacks.append(there_and_back)
    sim.turn()
    sim.until(lambda: sim.parent._partitions[0].ledger.next_offset == 10)
    assert drain(sim) == 0
    assert sim.broker.committed[0] == 10


ALL = [
    a_new_assignment_commits_anew,
    a_drain_waits_for_dead_letters,
    a_drain_whose_ring_breaks_says_what_goes_back,
    a_drain_waits_for_the_answer_to_its_commit,
    a_drain_ends_at_its_deadline_with_a_dead_sink,
    a_second_term_ends_at_once,
    a_draining_parent_fetches_nothing_of_what_it_is_given,
]
