"""Whom the watch over fetching blames, and how often it acts."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.fetch_watch import FetchWatch

TIMEOUT_S, LOOK_S = 10.0, 0.5
A_WHILE = 200


def looks(watch, count, *, start_s=0.0, end=100, position=50, placed=50, paused=False):
    """The cures of ``count`` looks in a state that stays as it is."""
    found = [
        watch.look(start_s + n * LOOK_S, end=end, position=position, placed=placed, paused=paused) for n in range(count)
    ]
    return [cure for cure in found if cure is not None]


def test_twice_at_the_same_position_and_then_only_when_the_log_grows():
    watch = FetchWatch(TIMEOUT_S)
    assert looks(watch, A_WHILE) == ["reset", "reassign"]
    assert looks(watch, A_WHILE, start_s=100) == []
    assert looks(watch, A_WHILE, start_s=200, end=101) == ["reset", "reassign"]


def test_a_log_that_grows_meanwhile_does_not_keep_it_from_the_second_cure():
    watch = FetchWatch(TIMEOUT_S)
    found = [watch.look(n * LOOK_S, end=100 + n, position=50, placed=50, paused=False) for n in range(A_WHILE)]
    assert [cure for cure in found if cure][:3] == ["reset", "reassign", "reset"]


def test_the_reset_goes_back_to_the_frontier_and_that_is_no_new_place():
    watch = FetchWatch(TIMEOUT_S)
    assert looks(watch, 30) == ["reset"]
    assert looks(watch, A_WHILE, start_s=15, position=20, placed=20) == ["reassign"]


def test_it_is_accused_only_after_the_timeout():
    assert looks(FetchWatch(TIMEOUT_S), 20) == []
    assert looks(FetchWatch(TIMEOUT_S), 23) == ["reset"]


@given(st.lists(st.sampled_from(["fetched", "placed", "paused", "unanswered", "caught up"]), min_size=1))
def test_nobody_is_blamed_who_moves_is_paused_or_cannot_be_seen(excuses):
    """One of them now and then is enough, whichever."""
    watch, position, placed, now_s = FetchWatch(TIMEOUT_S), 50, 50, 0.0
    for excuse in excuses * 3:
        position += excuse == "fetched"
        placed += excuse == "placed"
        end = {"unanswered": None, "caught up": position}.get(excuse, 10_000)
        assert watch.look(now_s, end=end, position=position, placed=placed, paused=excuse == "paused") is None
        assert looks(watch, 19, start_s=now_s + LOOK_S, end=10_000, position=position, placed=placed) == []
        now_s += 20 * LOOK_S


@given(st.integers(0, 1000), st.integers(1, 20))
def test_control_records_at_the_tail_are_no_lag(placed, markers):
    """The client has fetched them; nothing will ever be placed for them."""
    end = placed + markers
    assert looks(FetchWatch(TIMEOUT_S), A_WHILE, end=end, position=end, placed=placed) == []


@given(st.floats(1, 1e6))
def test_a_parent_that_was_frozen_blames_nobody(frozen_s):
    watch = FetchWatch(TIMEOUT_S)
    assert looks(watch, 15) == []
    assert watch.look(7 + frozen_s, end=100, position=50, placed=50, paused=False) is None


@given(st.none() | st.integers(0, 50))
def test_a_client_without_a_position_counts_as_standing(placed):
    assert looks(FetchWatch(TIMEOUT_S), 30, position=None, placed=placed) == ["reset"]
    assert looks(FetchWatch(TIMEOUT_S), 30, end=0, position=None, placed=0) == []
