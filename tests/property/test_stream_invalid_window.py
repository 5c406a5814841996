"""A partition is halted when more than half of its last 1,000 records are invalid, from ten sources; else never."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.stream.invalid_window import INVALID_MAX, RECORDS, SOURCES_MIN, InvalidWindow

RUNS = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400), st.integers(1, 25)), max_size=14)


def records_of(runs):
    """Per run: so many records, of which so many are invalid, from so many sources. None = valid."""
    for count, bad, sources in runs:
        yield from ((b"%d" % (n % sources) if n < bad else None) for n in range(count))


def must_halt(seen):
    bad = [source for source in seen[-RECORDS:] if source is not None]
    return len(bad) > INVALID_MAX and len(set(bad)) >= SOURCES_MIN


@settings(max_examples=25, deadline=None)
@given(RUNS, st.integers(1, 300))
def test_the_window_is_the_last_thousand_records(runs, batch):
    """One release per batch, its verdicts before it, as a worker gives them."""
    window, seen = InvalidWindow(), []
    records = list(records_of(runs))
    for start in range(0, len(records), batch):
        for n, source in enumerate(records[start : start + batch], start):
            if source is not None:
                window.judged(n, source)
                seen_now = [*seen, *records[start : n + 1]]
                assert (window.verdicts() is not None) == must_halt(seen_now)
        seen += records[start : start + batch]
        window.reached(len(seen))
        found = window.verdicts()
        assert (found is not None) == must_halt(seen)
        if found is not None:
            assert found.invalid > INVALID_MAX
            assert found.sources == len({s for s in seen[-RECORDS:] if s is not None})
    assert len(window._inside) <= RECORDS


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1999), unique=True, max_size=1500), st.randoms())
def test_what_is_judged_ahead_counts_once_the_window_is_there(ordinals, random):
    window = InvalidWindow()
    random.shuffle(ordinals)
    for n in ordinals:
        window.judged_ahead(n, b"%d" % (n % 11))
    assert window.verdicts() is None  # the window has not come to any of them
    for end in range(0, 2001, 50):
        window.reached(end)
        inside = [n for n in ordinals if end - RECORDS <= n < end]
        assert (window.verdicts() is not None) == (len(inside) > INVALID_MAX and len({n % 11 for n in inside}) >= 10)


def test_cleared_it_needs_as_many_again():
    window = InvalidWindow()
    for n in range(INVALID_MAX + 1):
        assert window.verdicts() is None
        window.judged(n, b"%d" % (n % SOURCES_MIN))
    found = window.verdicts()
    assert (found.invalid, found.sources, len(found.examples)) == (INVALID_MAX + 1, SOURCES_MIN, 3)
    window.clear()
    for n in range(INVALID_MAX):
        window.judged(1000 + n, b"%d" % n)
        assert window.verdicts() is None
    window.judged(2000, b"one more")
    assert window.verdicts() is None  # the first of them have left the window
