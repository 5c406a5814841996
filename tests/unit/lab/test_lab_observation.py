"""What counts as lost, and what does not."""

from dmpd.lab.observation import EdgeTotals, lost_changes, percentile


def test_nothing_is_lost_while_it_waits_in_an_outbox():
    edge = EdgeTotals(committed=100, outbox_rows=40)
    assert lost_changes(edge=edge, in_kafka=60, settled=0, revs=0) == 0


def test_what_left_the_outbox_and_is_not_in_kafka_is_lost():
    edge = EdgeTotals(committed=100, outbox_rows=0)
    assert lost_changes(edge=edge, in_kafka=97, settled=0, revs=0) == 3


def test_what_the_group_committed_and_the_database_lacks_is_lost():
    edge = EdgeTotals(committed=100)
    assert lost_changes(edge=edge, in_kafka=100, settled=90, revs=85) == 5


def test_a_database_ahead_of_the_settled_count_is_fine():
    assert lost_changes(edge=None, in_kafka=None, settled=10, revs=25) == 0


def test_a_party_that_does_not_answer_loses_nothing():
    assert lost_changes(edge=EdgeTotals(committed=9), in_kafka=None, settled=9, revs=None) == 0


def test_percentiles():
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None
