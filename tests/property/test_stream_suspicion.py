"""Whatever records are poisonous: just those are condemned, in few deaths, and a stray kill condemns none."""

from hypothesis import given
from hypothesis import strategies as st

from dmpd.stream.suspicion import DEATHS_ALONE_MAX, Suspicion


def run(total, poison, batch_max, kills=()):
    """Handle records 0 … total-1 as a worker would; returns what was condemned and how many died."""
    suspicion, at, condemned, deaths, offers = Suspicion(), 0, [], 0, 0
    while at < total:
        offer = range(at, at + min(batch_max, total - at, suspicion.width or batch_max))
        offers += 1
        assert offers < 1000 + 40 * total
        if not poison.isdisjoint(offer) or offers in kills:
            deaths += 1
            if suspicion.died(len(offer)):
                condemned.append(at)
                at += 1
                suspicion.released(1)
        else:
            at += len(offer)
            suspicion.released(len(offer))
    return condemned, deaths


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=6), st.integers(1, 400))
def test_just_the_poison_is_condemned(total, poison, batch_max):
    poison = {n for n in poison if n < total}
    condemned, deaths = run(total, poison, batch_max)
    assert condemned == sorted(poison)
    assert deaths <= len(poison) * (DEATHS_ALONE_MAX + 10)


@given(st.integers(1, 300), st.integers(1, 400), st.sets(st.integers(1, 200), max_size=2))
def test_two_kills_from_outside_condemn_nothing(total, batch_max, kills):
    assert run(total, set(), batch_max, kills)[0] == []


@given(st.integers(1, 200), st.integers(1, 400), st.sets(st.integers(1, 300), max_size=150))
def test_kills_from_outside_condemn_nothing_unless_three_follow_one_another(total, batch_max, kills):
    """Any number of them: whatever is released between two deaths begins the count anew."""
    kills = {n for n in kills if not {n - 1, n - 2} <= kills}
    assert run(total, set(), batch_max, kills)[0] == []
