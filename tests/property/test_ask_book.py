"""Backoff and bucket: never more often than promised, never silent for ever, never more memory than promised."""

import itertools
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from dmpd.cloud_registry.ask_book import AskBook
from dmpd.runtime.token_bucket import TokenBucket

FIRST_S, MAX_S = 60.0, 3600.0
STEPS = st.lists(st.tuples(st.floats(0.0, 400.0), st.integers(0, 3)), min_size=1, max_size=200)


def book_of(random=0.0, **more):
    return AskBook(first_s=FIRST_S, max_s=MAX_S, random=lambda: random, **more)


@given(steps=STEPS, random=st.floats(0.0, 0.999))
def test_what_stays_unanswered_is_asked_seldom_and_never_not_at_all(steps, random):
    book = book_of(random)
    now_s = 0.0
    asked = defaultdict(list)
    for wait_s, key in steps:
        now_s += wait_s
        if book.is_due(key, now_s):
            book.asked(key, now_s)
            asked[key].append(now_s)
        assert not book.is_due(key, now_s)
        assert book.is_due(key, now_s + MAX_S)
    for times in asked.values():
        assert all(later - earlier >= FIRST_S / 2 - 1e-6 for earlier, later in itertools.pairwise(times))


def test_the_backoff_is_a_minute_then_double_then_an_hour():
    book = book_of()
    now_s = 0.0
    gaps = []
    for _ in range(9):
        book.asked("a", now_s)
        gap = next(gap for gap in (60, 120, 240, 480, 960, 1920, 3600) if book.is_due("a", now_s + gap))
        gaps.append(gap)
        now_s += gap
    assert gaps == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


@given(
    passes=st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=8),
    again=st.integers(0, 9),
)
def test_what_a_pass_did_not_see_is_asked_at_once_when_it_comes_again(passes, again):
    book = book_of()
    for key in range(10):
        book.asked(key, 0.0)
    left = set(range(10))
    for seen in passes:
        book.begin_pass()
        for key in seen:
            book.see(key)
        book.end_pass()
        left &= seen
    assert book.is_due(again, 1.0) == (again not in left)
    assert len(book) == len(left)


def test_what_is_asked_during_a_pass_outlives_it():
    book = book_of()
    book.begin_pass()
    book.asked("a", 0.0)
    book.end_pass()
    assert not book.is_due("a", 1.0)


@given(keys=st.lists(st.integers(0, 50), max_size=300), entries_max=st.integers(1, 20))
def test_a_full_book_forgets_the_oldest_question(keys, entries_max):
    book = book_of(entries_max=entries_max)
    recent = []
    for now_s, key in enumerate(keys):
        book.asked(key, float(now_s) / 100)
        recent = [*(one for one in recent if one != key), key][-entries_max:]
        assert len(book) == len(recent) <= entries_max
    assert all(not book.is_due(key, 3.0) for key in recent)
    assert all(book.is_due(key, 3.0) for key in set(keys) - set(recent))


def test_what_was_left_alone_for_long_begins_with_the_shortest_wait():
    book = book_of()
    for now_s in (0.0, 60.0, 180.0):
        book.asked("a", now_s)
    assert not book.is_due("a", 180.0 + 239)
    long_after_s = 180.0 + 240 + MAX_S + 1
    book.asked("a", long_after_s)
    assert book.is_due("a", long_after_s + FIRST_S)


@given(
    per_s=st.floats(0.1, 1000.0),
    burst=st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(-1.0, 5.0), st.integers(1, 40)), max_size=100),
)
def test_a_bucket_gives_no_more_than_its_rate(per_s, burst, steps):
    bucket = TokenBucket(per_s, burst=burst)
    now_s, newest_s = 100.0, 0.0
    first_s = None
    taken = 0
    for wait_s, tokens in steps:
        now_s += wait_s
        newest_s = max(newest_s, now_s)
        first_s = newest_s if first_s is None else first_s
        taken += tokens * bucket.take(now_s, tokens)
        assert taken <= burst + per_s * (newest_s - first_s) * (1 + 1e-9) + 1e-6
    assert bucket.take(newest_s + burst / per_s + 1e-6, burst * (1 - 1e-9))
