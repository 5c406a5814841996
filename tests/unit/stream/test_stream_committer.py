"""What is committed when; time is a number."""

import pytest

from dmpd.stream.committer import Candidate, Committer


@pytest.fixture
def committer():
    return Committer(records=1000, interval_s=1.0, repeat_s=30.0, deadline_s=10.0)


def commit(committer, candidates, now_s, *, at_once=False, failed=False):
    """One round: due, sent, answered. Returns what was due."""
    offsets = committer.due(candidates, now_s, at_once=at_once)
    if offsets:
        committer.sent(candidates, offsets, now_s)
        committer.answered(offsets, {} if failed else offsets)
    return offsets


def test_nothing_owned_nothing_committed(committer):
    assert commit(committer, {}, 0.0, at_once=True) == {}


def test_it_waits_for_the_interval_or_the_records(committer):
    assert commit(committer, {0: Candidate(1, 10, 10)}, 100.0) == {0: 10}
    assert commit(committer, {0: Candidate(1, 11, 11)}, 100.5) == {}
    assert commit(committer, {0: Candidate(1, 12, 12)}, 101.0) == {0: 12}
    assert commit(committer, {0: Candidate(1, 1011, 1011)}, 101.1) == {}
    assert commit(committer, {0: Candidate(1, 1012, 1012)}, 101.1) == {0: 1012}


def test_records_of_all_partitions_count_together(committer):
    commit(committer, {0: Candidate(1, 1, 1)}, 100.0)
    candidates = {0: Candidate(1, 501, 501), 1: Candidate(2, 500, 500)}
    assert commit(committer, candidates, 100.1) == {0: 501, 1: 500}


def test_one_is_in_flight_until_answered_or_its_deadline(committer):
    first = {0: Candidate(1, 10, 10)}
    committer.sent(first, committer.due(first, 0.0), 0.0)
    later = {0: Candidate(1, 9999, 9999)}
    assert committer.due(later, 9.9, at_once=True) == {}
    assert committer.due(later, 10.0, at_once=True) == {0: 9999}
    committer.sent(later, {0: 9999}, 10.0)
    committer.answered({0: 10}, {0: 10})  # the answer that came too late
    assert not committer.is_committed(later)
    assert committer.committed_offset(0) is None
    committer.answered({0: 10}, {})  # and so would a refusal: the newer one is still in flight
    assert committer.due({0: Candidate(1, 10_000, 10_000)}, 10.1, at_once=True) == {}
    committer.answered({0: 9999}, {0: 9999})
    assert committer.is_committed(later)
    assert committer.committed_offset(0) == 9999


def test_a_quiet_partition_is_committed_again_beside_a_busy_one(committer):
    quiet, again = Candidate(1, 10, 10), []
    for second in range(100):
        offsets = commit(committer, {0: quiet, 1: Candidate(2, second, second)}, float(second))
        again += [second] if 0 in offsets else []
    assert again == [0, 30, 60, 90]


def test_an_answer_for_a_partition_that_went_meanwhile_says_nothing_of_the_next_assignment(committer):
    old = {0: Candidate(1, 50, 50), 1: Candidate(2, 7, 7)}
    committer.sent(old, committer.due(old, 0.0), 0.0)
    committer.forget(0)
    committer.answered({0: 50, 1: 7}, {0: 50, 1: 7})
    assert committer.committed_offset(0) is None
    assert committer.committed_offset(1) == 7


def test_an_unchanged_frontier_is_committed_again_each_30_s(committer):
    """A zombie's late commit may have pulled it back while the partition is idle."""
    idle = {0: Candidate(1, 10, 10)}
    assert commit(committer, idle, 0.0) == {0: 10}
    assert commit(committer, idle, 29.9) == {}
    assert commit(committer, idle, 30.0) == {0: 10}


def test_a_refused_commit_is_tried_again_after_the_interval(committer):
    candidates = {0: Candidate(1, 5000, 5000)}
    assert commit(committer, candidates, 0.0, failed=True) == {0: 5000}
    assert commit(committer, candidates, 0.5, failed=True) == {}
    assert committer.unanswered_s(0.5) == 0.5
    assert commit(committer, candidates, 1.0) == {0: 5000}
    assert committer.unanswered_s(1.0) == 0.0


def test_draining_does_not_wait_and_does_not_spin(committer):
    commit(committer, {0: Candidate(1, 1, 1)}, 0.0)
    candidates = {0: Candidate(1, 2, 2)}
    assert commit(committer, candidates, 0.01, at_once=True, failed=True) == {0: 2}
    assert commit(committer, candidates, 0.02, at_once=True) == {}
    assert commit(committer, candidates, 0.22, at_once=True) == {0: 2}


def test_a_new_assignment_is_another_one(committer):
    """What was committed under an earlier assignment says nothing of this one's frontier."""
    commit(committer, {0: Candidate(1, 10, 10)}, 0.0)
    again = {0: Candidate(2, 10, 3)}
    assert not committer.is_committed(again)
    assert commit(committer, again, 1.0) == {0: 10}
    assert committer.is_committed({0: Candidate(3, 10, 0)}), "nothing was processed yet: nothing to commit"


def test_what_is_forgotten_is_not_known_as_committed(committer):
    commit(committer, {0: Candidate(1, 10, 10)}, 0.0)
    committer.forget(0)
    assert committer.committed_offset(0) is None


def test_part_of_a_commit_may_be_refused(committer):
    candidates = {0: Candidate(1, 10, 10), 1: Candidate(1, 20, 20)}
    committer.sent(candidates, committer.due(candidates, 0.0), 0.0)
    committer.answered({0: 10, 1: 20}, {1: 20})
    assert committer.unanswered_s(5.0) == 5.0
    assert not committer.is_committed({0: candidates[0]})
    assert committer.is_committed({1: candidates[1]})


def test_a_revokes_own_commit_answers_nothing_of_the_one_in_flight(committer):
    candidates = {0: Candidate(1, 10, 10), 1: Candidate(1, 20, 20)}
    committer.sent(candidates, committer.due(candidates, 0.0), 0.0)
    for taken in ({1: 21}, {}):
        committer.answered({1: 21}, taken)
    assert committer.due({0: Candidate(1, 5000, 5000)}, 0.1, at_once=True) == {}
    committer.answered({0: 10, 1: 20}, {0: 10, 1: 20})
    assert committer.is_committed(candidates)


def test_a_new_client_does_not_wait_for_the_answer_to_the_old_ones_commit(committer):
    candidates = {0: Candidate(1, 10, 10)}
    committer.sent(candidates, committer.due(candidates, 0.0), 0.0)
    committer.give_up()
    assert committer.due({0: Candidate(2, 15, 5)}, 1.0) == {0: 15}
