"""Every stored row is told exactly once per report, to its RAE, under its epoch, in time."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dmpd.bridge.durable import DurableAcks, StoredRows, ranges_of

rows = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 2), st.integers(1, 60), st.floats(0, 0.3)), max_size=150
)


def rows_of(ack: StoredRows) -> set[tuple[str, int, int]]:
    return {(ack.rae, ack.epoch, seq) for first, last in ack.ranges for seq in range(first, last + 1)}


@given(rows, st.integers(1, 20))
def test_tells_all_stored_rows_and_no_other_within_the_delay(script, rows_max) -> None:
    delay_s = 0.5
    acks = DurableAcks(delay_s=delay_s, rows_max=rows_max)
    told: set[tuple[str, int, int]] = set()
    waiting: dict[tuple[str, int, int], float] = {}
    counts: Counter[tuple[str, int]] = Counter()
    now_s = 0.0

    def tell(ack: StoredRows) -> None:
        assert rows_of(ack) <= set(waiting), "told a row that is not stored"
        told.update(rows_of(ack))
        for row in rows_of(ack):
            del waiting[row]
        counts[ack.rae, ack.epoch] = 0

    for rae, epoch, seq, pause_s in script:
        now_s += pause_s
        for ack in acks.due(now_s):
            tell(ack)
        waiting.setdefault((rae, epoch, seq), now_s)
        counts[rae, epoch] += 1
        ack = acks.stored(rae, epoch, seq, now_s=now_s)
        assert (ack is not None) == (counts[rae, epoch] == rows_max)
        if ack is not None:
            tell(ack)
        assert all(now_s - since_s <= delay_s + 1e-9 for since_s in waiting.values()), "a row waits too long"
    for ack in acks.take_all():
        tell(ack)
    assert told == {(rae, epoch, seq) for rae, epoch, seq, _ in script}
    assert not waiting
    assert len(acks) == 0


@given(st.lists(st.integers(1, 50)))
def test_ranges_name_exactly_the_rows_as_shortly_as_possible(numbers) -> None:
    ranges = ranges_of(numbers)
    assert {seq for first, last in ranges for seq in range(first, last + 1)} == set(numbers)
    assert all(left[1] + 1 < right[0] for left, right in pairwise(ranges)), "two could be one"


steps = st.lists(
    st.tuples(st.sampled_from(["received", "stored", "due"]), st.sampled_from("abcd"), st.integers(1, 6)), max_size=80
)


@given(steps, st.integers(1, 5))
def test_the_worst_raes_are_those_whose_oldest_row_waits_longest(script, count) -> None:
    acks = DurableAcks(delay_s=5.0, rows_max=1000)
    waiting: dict[tuple[str, int], float] = {}
    in_batches: dict[str, float] = {}
    for now_s, (step, rae, seq) in enumerate(script):
        if step == "received":
            acks.received(rae, 1, seq, now_s=now_s)
            waiting.setdefault((rae, seq), now_s)
        elif step == "stored":
            acks.stored(rae, 1, seq, now_s=now_s)
            since_s = waiting.pop((rae, seq), now_s)
            in_batches[rae] = min(in_batches.get(rae, since_s), since_s)
        else:
            for ack in acks.due(now_s):
                assert ack.since_s == in_batches.pop(ack.rae)
        oldest = dict(in_batches)
        for (of, _), since_s in waiting.items():
            oldest[of] = min(oldest.get(of, since_s), since_s)
        found = acks.worst(count, now_s)
        assert [one.lag_s for one in found] == sorted((now_s - since_s for since_s in oldest.values()), reverse=True)[
            :count
        ]
        assert all(one.lag_s == now_s - oldest[one.rae] for one in found)


def test_what_a_lost_producer_had_lags_no_more() -> None:
    acks = DurableAcks(delay_s=1.0, rows_max=10)
    acks.received("a", 1, 1, now_s=0.0)
    acks.forget_received()
    assert acks.worst(5, 9.0) == []
