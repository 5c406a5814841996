"""Dead letters of one source are limited and those of the others are not, whatever the sources and however many."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.stream import source_limits
from dmpd.stream.source_limits import SourceLimits, Sources, whole_key

STEPS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 5)), max_size=300)


@settings(deadline=None)
@given(STEPS, st.integers(1, 8), st.integers(2, 5))
def test_each_source_keeps_its_limit_and_its_samples_in_each_window(steps, per_minute, sample_every):
    limits = SourceLimits(per_minute=per_minute, sample_every=sample_every)
    now_s, window_ends_s, seen = 0.0, None, Counter()
    for source, wait_s in steps:
        now_s += wait_s
        said = limits.ended(now_s)
        if window_ends_s is None or now_s >= window_ends_s:
            over = {s: n - per_minute - (n - per_minute) // sample_every for s, n in seen.items() if n > per_minute}
            over = {s: n for s, n in over.items() if n}
            assert ({one.source.encode(): one.dropped for one in said.worst} if said else {}) == over
            assert (said.letters if said else 0) == sum(over.values())
            window_ends_s, seen = now_s + source_limits.WINDOW_S, Counter()
        else:
            assert said is None
        seen[source] += 1
        over = seen[source] - per_minute
        assert limits.keeps(source, now_s) == (over <= 0 or over % sample_every == 0)


def test_millions_of_sources_are_bounded_in_memory_and_in_letters(monkeypatch):
    monkeypatch.setattr(source_limits, "SOURCES_MAX", 50)
    limits = SourceLimits(per_minute=10, sample_every=1000)
    kept = sum(limits.keeps(b"%d" % n, 0.0) for n in range(20_000))
    assert len(limits._counts) == 51
    assert kept == 50 + 10 + (20_000 - 50 - 10) // 1000
    assert limits.keeps(b"7", 0.0)
    said = limits.ended(60.0)
    assert [one.source for one in said.worst] == ["(others)"]
    assert not limits._counts


def test_only_the_worst_are_named():
    limits = SourceLimits(per_minute=1)
    for source in range(30):
        for _ in range(2 + source):
            limits.keeps(b"%d" % source, 0.0)
    said = limits.ended(60.0)
    assert [one.source for one in said.worst] == [str(n) for n in range(29, 19, -1)]
    assert (said.more_sources, said.letters) == (20, sum(1 + n for n in range(30)))


@given(st.binary(max_size=2000))
def test_a_sources_name_is_short_and_still_its_own(key):
    name = Sources(whole_key).name(key)
    assert len(name) <= source_limits.NAME_BYTES_MAX + 33
    assert Sources(whole_key).name(key + b"x") != name


def test_a_function_that_fails_names_one_source_and_says_so_once(caplog):
    sources = Sources(lambda key: key.split(b"/")[5])
    assert {sources.name(b"short"), sources.name(None)} == {b"(unknown)"}
    assert sources.name(b"a/b/c/d/e/f") == b"f"
    assert caplog.text.count("source_of failed") == 1


@pytest.mark.parametrize(("key", "name"), [(None, b""), (b"k", b"k")])
def test_by_default_a_key_is_a_source(key, name):
    assert Sources(whole_key).name(key) == name
