"""Requests on their way: nobody is forgotten, nobody overtakes, an absent RAE holds up no other."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dmpd.bridge.pending import (
    AGAIN_FIRST_S,
    AGAIN_MAX_S,
    GRACE_S,
    WINDOW,
    Frontier,
    Key,
    Pending,
    PendingRequest,
    Place,
)

RAES = ("r1", "r2", "r3")


def pending_request(rae: str, name: str, offset: int, *, now_s: float = 0.0, lifetime_s: int = 60) -> PendingRequest:
    key = Key(rae, "op-a", name)
    return PendingRequest(
        key, Place(0, offset), "rae", f"dmp/v1/{rae}/rae/cmd/op-a", b"", lifetime_s, now_s + lifetime_s
    )


class Machine(RuleBasedStateMachine):
    """Against a model that knows only which requests are open."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = Pending(per_rae_max=40)
        self.now_s = 0.0
        self.offset = 0
        self.open: dict[Place, PendingRequest] = {}
        self.sent: dict[str, list[PendingRequest]] = {rae: [] for rae in RAES}
        self.answered_at_s = dict.fromkeys(RAES, 0.0)

    @rule(rae=st.sampled_from(RAES), name=st.integers(0, 30), lifetime_s=st.sampled_from([1, 5, 60]))
    def add(self, rae: str, name: int, lifetime_s: int) -> None:
        self.offset += 1
        request = pending_request(rae, str(name), self.offset, now_s=self.now_s, lifetime_s=lifetime_s)
        of_rae = sum(one.key.rae == rae for one in self.open.values())
        assert self.pending.add(request) is (of_rae < 40)
        if of_rae < 40:
            self.open[request.place] = request

    @rule(room=st.integers(0, 50))
    def send(self, room: int) -> None:
        found = self.pending.due(self.now_s, room=room)
        assert len(found) <= room
        for request in found:
            assert request.place in self.open
            assert self.now_s < request.deadline_s
            self.sent[request.key.rae].append(request)
        for rae in RAES:
            offsets = [one.place.offset for one in found if one.key.rae == rae]
            assert offsets == sorted(offsets)
            assert len(offsets) <= WINDOW

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted({one.key for one in self.open.values()})))
        places = self.pending.answered(key, self.now_s)
        expected = [place for place, one in self.open.items() if one.key == key]
        assert sorted(places) == sorted(expected)
        for place in places:
            del self.open[place]

    @rule(passed_s=st.sampled_from([0.1, 1.0, 2.0, 10.0, 31.0]))
    def wait(self, passed_s: float) -> None:
        self.now_s += passed_s
        over = self.pending.over(self.now_s)
        expected = {place for place, one in self.open.items() if one.deadline_s + GRACE_S <= self.now_s}
        assert {one.place for one in over} == expected
        for one in over:
            del self.open[one.place]

    @invariant()
    def counts(self) -> None:
        assert len(self.pending) == len(self.open)

    def teardown(self) -> None:
        """Whatever happened: within the longest interval each RAE's oldest living requests go (again)."""
        self.pending.due(self.now_s, room=10_000)
        self.now_s += AGAIN_MAX_S
        found = {one.place for one in self.pending.due(self.now_s, room=10_000)}
        for rae in RAES:
            living = sorted(p for p, one in self.open.items() if one.key.rae == rae and one.deadline_s > self.now_s)
            assert set(living[:WINDOW]) <= found


TestPending = Machine.TestCase
TestPending.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_request_is_repeated_with_growing_intervals_until_it_is_answered():
    pending = Pending(per_rae_max=10)
    pending.add(pending_request("r1", "a", 1, lifetime_s=3600))
    sent_s = [tenth / 10 for tenth in range(2000) if pending.due(tenth / 10, room=10)]
    assert sent_s[:6] == [0.0, 2.0, 6.0, 14.0, 30.0, 60.0]
    assert pending.answered(Key("r1", "op-a", "a"), 200.0) == [Place(0, 1)]
    assert pending.due(1000.0, room=10) == []


def test_new_requests_of_an_absent_rae_wait_for_its_round_and_go_in_order():
    pending = Pending(per_rae_max=10)
    pending.add(pending_request("r1", "a", 1))
    assert len(pending.due(0.0, room=10)) == 1
    assert [one.key.id for one in pending.due(AGAIN_FIRST_S, room=10)] == ["a"]
    pending.add(pending_request("r1", "b", 2))
    pending.add(pending_request("r2", "c", 3))
    assert [one.key.id for one in pending.due(AGAIN_FIRST_S + 0.1, room=10)] == ["c"]
    assert [one.key.id for one in pending.due(6.0, raes=["r1"], room=10)] == ["a", "b"]
    pending.answered(Key("r1", "op-a", "a"), 6.1)
    pending.add(pending_request("r1", "d", 4))
    assert [one.key.id for one in pending.due(6.2, raes=["r1"], room=10)] == ["d"]


def test_a_full_window_moves_with_each_answer():
    pending = Pending(per_rae_max=100)
    for number in range(WINDOW + 5):
        pending.add(pending_request("r1", str(number), number))
    assert len(pending.due(0.0, room=100)) == WINDOW
    assert pending.due(0.1, room=100) == []
    pending.answered(Key("r1", "op-a", "3"), 0.2)
    assert [one.key.id for one in pending.due(0.2, room=100)] == [str(WINDOW)]


def test_what_the_broker_did_not_take_goes_with_the_next_round():
    pending = Pending(per_rae_max=10)
    request = pending_request("r1", "a", 1)
    pending.add(request)
    pending.due(0.0, room=1)
    pending.unsent(request)
    assert pending.due(0.1, room=1) == [request]


def test_a_round_that_found_only_dead_requests_does_not_stop_the_next_one():
    pending = Pending(per_rae_max=10)
    pending.add(pending_request("r1", "dead", 1, lifetime_s=1))
    pending.due(0.0, room=10)
    assert pending.due(2.0, room=10) == []
    pending.add(pending_request("r1", "new", 2, now_s=2.5))
    assert [one.key.id for one in pending.due(2.5, room=10)] == ["new"]


def test_a_round_goes_on_when_the_broker_has_room_again():
    pending = Pending(per_rae_max=10)
    for number in range(4):
        pending.add(pending_request("r1", str(number), number))
    assert len(pending.due(0.0, room=4)) == 4
    assert [one.key.id for one in pending.due(2.0, room=1)] == ["0"]
    pending.add(pending_request("r1", "late", 9))
    assert [one.key.id for one in pending.due(2.1, room=10)] == ["1", "2", "3"]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60), st.randoms(use_true_random=False))
def test_the_frontier_is_the_first_offset_that_is_not_done(history, random):
    frontier = Frontier()
    taken: dict[int, list[int]] = {}
    undone: dict[int, set[int]] = {}
    told: dict[int, int] = {}
    for partition, takes in history:
        if takes or not undone.get(partition):
            offset = (taken.setdefault(partition, []) or [4])[-1] + 1 + random.randrange(3)
            taken[partition].append(offset)
            undone.setdefault(partition, set()).add(offset)
            frontier.taken(Place(partition, offset))
        else:
            offset = random.choice(sorted(undone[partition]))
            undone[partition].discard(offset)
            frontier.done(Place(partition, offset))
        told |= frontier.to_commit()
        assert told == {number: min(undone[number], default=taken[number][-1] + 1) for number in taken}
    assert frontier.to_commit() == {}
    frontier.again()
    assert frontier.to_commit() == told
