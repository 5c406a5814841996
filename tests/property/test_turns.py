"""Turns of RAEs: whoever has something is told within a time that the number of the others gives, not what one has."""

import itertools
import json
from collections import defaultdict
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.cloud_registry import turns as module
from dmpd.cloud_registry.asks import BURST, PER_S, Asks, Teller
from dmpd.cloud_registry.turns import Turns
from dmpd.model.apply import EpochRaise, Verdict
from dmpd.model.topics import parse_topic
from tests.support.messages import AT, EPOCH, session_id

PUTS = st.tuples(st.sampled_from("abcdef"), st.sampled_from("123456789"))


@given(steps=st.lists(st.one_of(st.none(), PUTS), max_size=200))
def test_between_two_turns_of_a_rae_every_other_one_has_at_most_one(steps):
    turns = Turns()
    here = defaultdict(list)
    passed = defaultdict(set)
    with mock.patch.multiple(module, OF_ONE_MAX=3, THINGS_MAX=6, RAES_MAX=5):
        for number, step in enumerate(steps):
            if step is None:
                if turns:
                    rae, name, _ = turns.pop()
                    assert here[rae].pop(0) == name, "the oldest"
                    passed[rae].clear()
                    for other in here.keys() - {rae}:
                        if here[other]:
                            assert rae not in passed[other], "twice, while another one waited"
                            passed[other].add(rae)
            else:
                rae, name = step
                is_known = name in here[rae]
                if turns.put(rae, name, number):
                    assert turns.get(rae, name) == number
                    here[rae] += [] if is_known else [name]
                else:
                    assert not is_known
                    assert here[rae] or sum(map(bool, here.values())) == 5, "one thing of each RAE finds room"
            assert len(turns) == sum(map(len, here.values())) == len(list(turns)) <= 6 + 5
            assert all(len(names) <= 3 for names in here.values())


def flood(kind, count, numbers):
    """What a RAE asks for in one second: sessions that ended, or an epoch that is another one each time."""
    for _ in range(count):
        if kind == "forget":
            number = next(numbers)
            yield lambda asks, rae, number=number: asks.forget(rae, session_id(number))
        else:
            told = EpochRaise(refused=EPOCH - next(numbers) - 1, above=EPOCH)
            yield lambda asks, rae, told=told: asks.take(rae, Verdict(outcome="lower_epoch", epoch_raise=told))


@settings(deadline=None, max_examples=30)
@given(
    kinds=st.lists(st.sampled_from(["forget", "epoch.raise"]), min_size=1, max_size=25),
    per_s=st.integers(1, 60),
    at_s=st.integers(0, 30),
    is_shown_again=st.booleans(),
)
def test_no_flood_of_others_keeps_a_rae_from_being_told(kinds, per_s, at_s, is_shown_again):
    numbers = itertools.count()
    teller = Teller(random=lambda: 0.5, new_id=lambda: f"r{next(numbers)}")
    bound_s = (len(kinds) + 1) / PER_S + 1
    told = []
    for second in range(at_s + int(bound_s) + 1):
        asks = Asks()
        for place, kind in enumerate(kinds):
            for ask in flood(kind, per_s, numbers):
                ask(asks, f"FLOOD-{place}")
        if second == at_s or (is_shown_again and second > at_s):
            asks.forget("GOOD", session_id(0))
        said = list(teller.due(asks, now_s=float(second), at=AT))
        told += [(second, parse_topic(one.key.decode()).rae) for one in said]
    assert [second for second, rae in told if rae == "GOOD"], f"not told within {bound_s} s"
    assert len(told) <= BURST + PER_S * (told[-1][0] - told[0][0]), "the bucket"


@pytest.mark.parametrize("batches", [1, 100])
def test_what_waits_of_one_rae_is_bounded(batches):
    numbers = itertools.count()
    teller = Teller(random=lambda: 0.5, new_id=lambda: f"r{next(numbers)}")
    for _ in range(batches):
        asks = Asks()
        for _ in range(1000):
            asks.forget("FLOOD", session_id(next(numbers)))
        assert len(asks) == module.OF_ONE_MAX
        list(teller.due(asks, now_s=0.0, at=AT))
    left = [json.loads(one.value) for second in range(1, 1000) for one in teller.due(Asks(), now_s=second, at=AT)]
    assert module.OF_ONE_MAX - BURST <= len(left) <= module.OF_ONE_MAX
