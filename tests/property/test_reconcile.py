"""Which stale rows are asked when: as often as promised, at the promised rate, and none is forgotten."""

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.cloud_registry.reconcile import Reconciliation, StaleRow
from tests.support.messages import session_id

FIRST_S, MAX_S = 60.0, 240.0
RAES = ("RAE-1", "RAE-2", "RAE-3")


class Table:
    """The stale rows of a database, and what was asked at which time."""

    def __init__(self, *, per_s, page_rows):
        self.stale = set()
        self.away = set()
        self.state = Reconciliation(per_s=per_s, first_s=FIRST_S, max_s=MAX_S, random=lambda: 0.0, page_rows=page_rows)
        self.asked = defaultdict(list)

    def page(self):
        rows = sorted(StaleRow(int(rae[4:]) % 2, rae, session, rae not in self.away) for rae, session in self.stale)
        return [row for row in rows if row.cursor > self.state.cursor][: self.state.page_rows]

    def tick(self, now_s):
        """What the reconciler does in one round."""
        while True:
            passes, before = self.state.passes, self.state.cursor
            for row in self.state.take(self.page(), now_s):
                assert (row.rae, row.session) in self.stale
                assert row.rae not in self.away
                self.asked[row.rae, row.session].append(now_s)
            if self.state.passes != passes or self.state.cursor == before:
                return


KEYS = st.tuples(st.sampled_from(RAES), st.integers(1, 12).map(session_id))
EVENTS = st.one_of(
    st.tuples(st.just("stale"), KEYS),
    st.tuples(st.just("healed"), KEYS),
    st.tuples(st.just("away"), st.sampled_from(RAES)),
    st.tuples(st.just("back"), st.sampled_from(RAES)),
    st.tuples(st.just("wait"), st.integers(1, 90)),
)


@settings(deadline=None)
@given(events=st.lists(EVENTS, max_size=40), per_s=st.sampled_from([1.0, 3.0, 50.0]), page_rows=st.integers(1, 5))
def test_every_stale_row_is_asked_and_none_too_often(events, per_s, page_rows):
    table = Table(per_s=per_s, page_rows=page_rows)
    now_s = 0.0
    healed_s = defaultdict(lambda: -1.0)
    for kind, what in events:
        if kind == "stale":
            table.stale.add(what)
        elif kind == "healed" and what in table.stale:
            table.stale.discard(what)
            healed_s[what] = now_s
        elif kind == "away":
            table.away.add(what)
        elif kind == "back":
            table.away.discard(what)
        elif kind == "wait":
            for _ in range(what):
                now_s += 1.0
                table.tick(now_s)
    total = sorted(time_s for times in table.asked.values() for time_s in times)
    for place, time_s in enumerate(total):
        assert place + 1 <= per_s + per_s * (time_s - total[0]) + 1e-6, "the bucket"
    for key, times in table.asked.items():
        for earlier, later in itertools.pairwise(times):
            assert later - earlier >= FIRST_S or healed_s[key] >= earlier, "the backoff"

    begun_s = now_s
    rows = {key for key in table.stale if key[0] not in table.away}
    for _ in range(int(MAX_S) + 60):
        now_s += 1.0
        table.tick(now_s)
    for key in rows:
        assert any(time_s > begun_s for time_s in table.asked[key]), "nobody waits for ever"
    backlog = table.state.backlog
    assert backlog.stale == len(table.stale)
    assert backlog.stale == backlog.asked + backlog.waiting + backlog.unreachable + backlog.later
    assert backlog.unreachable == len(table.stale) - len(rows)


def test_a_rae_that_comes_back_is_asked_at_once():
    table = Table(per_s=50.0, page_rows=100)
    table.stale = {("RAE-1", session_id(number)) for number in range(20)}
    table.away = {"RAE-1"}
    for now_s in range(1, 100):
        table.tick(float(now_s))
    assert not table.asked
    table.away.clear()
    table.tick(100.0)
    assert len(table.asked) == 20


@pytest.mark.parametrize("page_rows", [2, 100])
def test_an_empty_bucket_goes_on_where_it_stopped(page_rows):
    table = Table(per_s=1.0, page_rows=page_rows)
    table.stale = {(f"RAE-{number}", session_id(number)) for number in range(30)}
    for now_s in range(30):
        assert table.state.passes == 0
        table.tick(float(now_s))
        assert sum(map(len, table.asked.values())) == now_s + 1
    assert sorted(map(len, table.asked.values())) == [1] * 30
    table.tick(30.0)
    assert table.state.backlog.stale == 30


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    place=st.integers(0, 9),
    at_s=st.integers(0, 40),
    per_s=st.sampled_from([1.0, 3.0, 20.0]),
)
def test_no_number_of_rows_of_others_keeps_a_rae_from_being_asked(sizes, place, at_s, per_s):
    table = Table(per_s=per_s, page_rows=100)
    table.stale = {(f"RAE-{rae + 1}", session_id(n)) for rae, size in enumerate(sizes) for n in range(size)}
    for now_s in range(at_s):
        table.tick(float(now_s))
    one = (f"RAE-{place}5", session_id(0))
    table.stale.add(one)
    bound_s = 2 * (len(sizes) + 1) + 2  # the rest of a pass and the next one, a second for each RAE
    for now_s in range(at_s, at_s + bound_s):
        table.tick(float(now_s))
    assert table.asked[one], f"not asked within {bound_s} s"


def test_a_rae_alone_has_the_whole_rate():
    table = Table(per_s=5.0, page_rows=100)
    table.stale = {("RAE-1", session_id(number)) for number in range(200)}
    for now_s in range(40):
        table.tick(float(now_s))
        assert table.state.backlog.later == 200 - 5 * (now_s + 1)
    assert sum(map(len, table.asked.values())) == 200
