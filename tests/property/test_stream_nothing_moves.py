"""When the whole stream is given up."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.nothing_moves import NothingMoves, Standing

TIMEOUT_S = 10.0
STANDING = Standing(next_offset=5, next_to_place=9, narrowness=(0, 0, 0), has_work=True)
IDLE = STANDING._replace(has_work=False)


def gives_up(partitions_at, *, seconds=60, is_excused=lambda second: False):
    """Whether it gives up within so many looks, one a second."""
    one = NothingMoves(TIMEOUT_S)
    return any(one.look(float(s), partitions_at(s), is_excused=is_excused(s)) for s in range(seconds))


def test_work_that_nobody_does_ends_the_process():
    assert gives_up(lambda s: {0: STANDING, 1: IDLE})
    assert not gives_up(lambda s: {0: STANDING, 1: IDLE}, seconds=11)


def test_without_work_nothing_has_to_move():
    assert not gives_up(lambda s: {0: IDLE, 1: IDLE})
    assert not gives_up(lambda s: {})


@given(st.integers(1, 9), st.sampled_from(["next_offset", "next_to_place"]))
def test_one_partition_that_moves_now_and_then_is_enough(every_s, what):
    assert not gives_up(lambda s: {0: STANDING, 1: STANDING._replace(**{what: 10 + s // every_s})})


def test_narrowing_in_on_a_deadly_record_is_movement():
    assert not gives_up(lambda s: {0: STANDING._replace(narrowness=(64 >> s // 8, 0, 0))}, seconds=56)


def test_waiting_for_sink_or_broker_counts_for_nothing():
    assert not gives_up(lambda s: {0: STANDING}, is_excused=lambda s: s % 9 == 0)


def test_placing_again_after_resets_is_no_movement():
    assert gives_up(lambda s: {0: STANDING._replace(next_to_place=9 - s % 4)})


def test_partitions_that_come_or_go_are_movement():
    assert not gives_up(lambda s: {0: STANDING} | ({1: IDLE} if s // 9 % 2 else {}))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=10))
def test_a_frozen_process_is_credited_a_second_per_look(pauses_s):
    one, now_s = NothingMoves(TIMEOUT_S), 0.0
    for pause_s in pauses_s:
        now_s += pause_s
        assert not one.look(now_s, {0: STANDING}, is_excused=False)
