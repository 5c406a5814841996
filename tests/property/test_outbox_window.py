"""The outbox window against a lossy broker and bridge: nothing leaves unstored, nothing waits for ever."""

import itertools
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.local_registry.outbox import (
    PROBE_MAX_S,
    WINDOW_BYTES_MAX,
    WINDOW_ROWS_MAX,
    Backlog,
    Row,
    Window,
    events_to_drop,
    sessions_to_coalesce,
)
from dmpd.local_registry.settings import OutboxSettings

ACTIONS = (
    "commit",
    "commit",
    "send",
    "send",
    "answer",
    "answer_all",
    "bridge",
    "bridge",
    "lose_durable",
    "broker_loses_all",
    "bridge_away",
    "bridge_back",
    "refuse",
    "reconnect",
    "wait_short",
    "wait_long",
)


@dataclass
class World:
    """A RAE's window and store on one side; a broker with a queue and a bridge that stores on the other."""

    random: Random
    now_s: float = 0.0
    seq: int = 0
    store: list[Row] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)
    queue: list[Row] = field(default_factory=list)
    kafka: list[int] = field(default_factory=list)
    unreported: set[int] = field(default_factory=set)
    bridge_there: bool = True
    loss: float = 0.5
    """Of what goes at QoS 0."""
    first_sent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.window = Window(self.random.random)

    def act(self, action: str) -> None:
        getattr(self, action)()
        self.check()

    def commit(self) -> None:
        for _ in range(self.random.randrange(1, 30)):
            self.seq += self.random.choice((1, 1, 1, 7))
            size = self.random.choice((100, 300, 200_000))
            self.store.append(Row(self.seq, f"s{self.seq % 5}", "change", 1, 0, bytes(size)))
        self.load()

    def load(self) -> None:
        after = self.window.loaded_through
        self.window.load([row for row in self.store if row.seq > after])

    def send(self) -> None:
        while len(self.answers) < 20 and self.window.open(self.now_s):
            if self.window.bridge_absent and self.answers:
                return
            due = self.window.due(self.now_s)
            if due is None:
                return
            row, qos = due
            place = self.window.sent(row.seq, qos, self.now_s)
            if row.seq not in self.first_sent:
                self.first_sent.append(row.seq)
            if qos:
                self.answers.append((row.seq, place))
            if self.bridge_there and (qos or self.random.random() >= self.loss):
                self.queue.insert(len(self.queue) if qos else 0, row)

    def answer(self) -> None:
        if self.answers:
            self.window.answered(*self.answers.pop(0), 0 if self.bridge_there else 0x10, self.now_s)

    def answer_all(self) -> None:
        while self.answers:
            self.answer()

    def refuse(self) -> None:
        if self.answers:
            seq, place = self.answers.pop(0)
            self.queue = [row for row in self.queue if row.seq != seq]
            self.window.answered(seq, place, 0x97, self.now_s)

    def bridge(self) -> None:
        if not self.bridge_there:
            return
        self.kafka.extend(row.seq for row in self.queue)
        self.unreported.update(row.seq for row in self.queue)
        self.queue.clear()
        stored, self.unreported = sorted(self.unreported), set()
        removed = self.window.durable([(seq, seq) for seq in stored], self.now_s)
        self.removed(removed)
        self.load()

    def removed(self, rows: list[Row]) -> None:
        assert {row.seq for row in rows} <= set(self.kafka), "a row left that Kafka does not have"
        gone = {row.seq for row in rows}
        self.store = [row for row in self.store if row.seq not in gone]

    def lose_durable(self) -> None:
        self.kafka.extend(row.seq for row in self.queue)
        self.queue.clear()
        self.unreported.clear()

    def broker_loses_all(self) -> None:
        self.queue.clear()
        self.reconnect()

    def bridge_away(self) -> None:
        self.bridge_there = False

    def bridge_back(self) -> None:
        self.bridge_there = True

    def reconnect(self) -> None:
        self.answers.clear()
        self.window.connected(self.now_s, run=1)

    def wait_short(self) -> None:
        self.now_s += 2.0

    def wait_long(self) -> None:
        self.now_s += 45.0

    def check(self) -> None:
        rows = [flight.row for flight in self.window._flights.values()]
        assert [row.seq for row in rows] == sorted(row.seq for row in rows)
        assert len(rows) <= WINDOW_ROWS_MAX
        assert self.window.bytes_held == sum(len(row.payload) for row in rows)
        assert len(rows) <= 1 or self.window.bytes_held <= WINDOW_BYTES_MAX
        assert self.first_sent == sorted(self.first_sent), "first sends out of order"
        assert {row.seq for row in rows} <= {row.seq for row in self.store}


@given(st.integers(0, 2**32), st.lists(st.sampled_from(ACTIONS), max_size=60))
@settings(max_examples=150, deadline=None)
def test_every_row_becomes_durable_and_none_leaves_unstored(seed: int, actions: list[str]) -> None:
    world = World(Random(seed))
    for action in actions:
        world.act(action)
    world.bridge_back()
    world.loss = 0.0
    waited_s = 0.0
    while world.store:
        world.send()
        world.answer_all()
        world.bridge()
        world.check()
        world.now_s += 1.0
        waited_s += 1.0
        assert waited_s <= PROBE_MAX_S + 60 + world.seq, "rows wait for ever"
    assert set(world.kafka) >= set(world.first_sent)


def sent_through(window: Window, now_s: float, *, answer: int = 0) -> list[int]:
    sent = []
    while (due := window.due(now_s)) is not None:
        place = window.sent(due.row.seq, due.qos, now_s)
        if due.qos:
            window.answered(due.row.seq, place, answer, now_s)
        sent.append(due.row.seq)
    return sent


def window_of(seqs: range) -> Window:
    window = Window(lambda: 0.5)
    window.load([Row(seq, "s", "change", 1, 0, b"x") for seq in seqs])
    return window


def test_durable_lost_for_the_first_rows_while_later_ones_arrive_sends_them_again() -> None:
    """History: rows 1-3 lost their ``durable``, 4, 5, ... keep coming: the outbox must not grow for ever."""
    window = window_of(range(1, 6))
    assert sent_through(window, 0.0) == [1, 2, 3, 4, 5]
    assert [row.seq for row in window.durable([(4, 5)], 5.0)] == [4, 5]
    assert sent_through(window, 29.0) == []
    assert sent_through(window, 31.0) == [1, 2, 3], "what was sent after them is durable: theirs was lost"
    assert sent_through(window, 40.0) == []


def test_rows_that_the_broker_dropped_go_again_by_ones_and_twos_and_fours() -> None:
    """History: its queue was over its limit, and it answered with success all the same."""
    window = window_of(range(1, 31))
    assert len(sent_through(window, 0.0)) == 30
    now_s, rounds = 31.0, []
    while len(window):
        sent = sent_through(window, now_s)
        if sent:
            rounds.append(len(sent))
            window.durable([(sent[0], sent[-1])], now_s + 0.4)
        now_s += 0.5
    assert rounds == [1, 2, 4, 8, 15]
    assert now_s < 45


def test_rows_sent_again_that_are_lost_again_do_not_wait_for_ever_behind_a_steady_flow() -> None:
    window = window_of(range(1, 4))
    sent_through(window, 0.0)
    times = []
    for number in range(4, 200):
        now_s = float(number)
        window.load([Row(number, "s", "change", 1, 0, b"x")])
        times += [now_s for seq in sent_through(window, now_s) if seq == 1]
        window.durable([(number, number)], now_s + 0.4)
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
    assert len(gaps) >= 5
    assert all(30 <= gap <= 32 for gap in gaps)


def test_nothing_goes_at_qos_1_twice_on_a_connection() -> None:
    window = window_of(range(1, 11))
    kept = []
    for now_s in range(3600):
        while (due := window.due(float(now_s))) is not None:
            place = window.sent(due.row.seq, due.qos, float(now_s))
            if due.qos:
                window.answered(due.row.seq, place, 0, float(now_s))
                kept.append(due.row.seq)
        if now_s % 600 == 0:
            window.again()
    assert kept == list(range(1, 11))


def test_connecting_again_while_nothing_becomes_durable_sends_one_row() -> None:
    window = window_of(range(1, 11))
    sent_through(window, 0.0)
    window.connected(10.0, run=2)
    assert sent_through(window, 10.0) == list(range(1, 11)), "it is not known yet that nothing does"
    window.connected(50.0, run=3)
    assert sent_through(window, 50.0) == [1]
    window.durable([(1, 1)], 51.0)
    assert sent_through(window, 52.0) == []
    assert sent_through(window, 54.0) == [2, 3]
    window.connected(60.0, run=4)
    assert sent_through(window, 60.0) == list(range(2, 11)), "something became durable: all is as ever"


def test_probe_backs_off_to_ten_minutes() -> None:
    window = window_of(range(1, 4))
    sent_through(window, 0.0)
    probes = [now_s for now_s in range(4000) if sent_through(window, float(now_s)) == [1]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(probes)]
    assert 30 <= probes[0] <= 31
    assert gaps == sorted(gaps)
    assert PROBE_MAX_S * 0.75 <= gaps[-1] <= PROBE_MAX_S


def test_no_subscriber_holds_everything_but_one_row() -> None:
    window = window_of(range(1, 30))
    for _ in range(3):
        due = window.due(0.0)
        assert due is not None
        window.sent(due.row.seq, 1, 0.0)
    window.answered(1, 1, 0x10, 0.1)
    assert window.due(0.1) is None, "two are still unanswered"
    window.answered(2, 2, 0x10, 0.1)
    window.answered(3, 3, 0x10, 0.1)
    assert window.due(0.2) is None
    assert window.holding_back(0.2)
    due = window.due(1.2)
    assert due is not None
    assert (due.row.seq, due.qos) == (1, 1)
    place = window.sent(1, 1, 1.2)
    assert window.due(1.3) is None, "one probe at a time"
    window.answered(1, place, 0, 1.3)
    assert sent_through(window, 1.4) == list(range(2, 30))


def test_new_connection_sends_all_again_in_order() -> None:
    window = window_of(range(1, 10))
    sent_through(window, 0.0)
    window.durable([(3, 4)], 1.0)
    window.connected(2.0, run=2)
    assert sent_through(window, 2.0) == [1, 2, 5, 6, 7, 8, 9]


def test_ranges_far_beyond_the_window_touch_only_what_is_in_it() -> None:
    window = window_of(range(5, 10))
    assert [row.seq for row in window.durable([(1, 2**63 - 1)], 0.0)] == [5, 6, 7, 8, 9]
    assert len(window) == 0
    assert window.bytes_held == 0


backlogs = st.lists(
    st.builds(
        Backlog,
        session=st.uuids().map(str),
        rows=st.integers(1, 2000),
        bytes=st.integers(100, 500_000),
        oldest_ms=st.integers(0, 10**9),
    ),
    max_size=50,
    unique_by=lambda one: one.session,
)


@given(backlogs)
def test_coalescing_ends_under_the_bound_or_with_one_row_each(waiting: list[Backlog]) -> None:
    bounds = OutboxSettings(rows_max=1000, age_max_s=10**7)
    rows = sum(one.rows for one in waiting)
    chosen = sessions_to_coalesce(waiting, rows=rows, bytes_held=0, now_ms=0, bounds=bounds)
    left = sum(1 if one.session in chosen else one.rows for one in waiting)
    if rows <= bounds.rows_max:
        assert chosen == []
    else:
        assert left <= bounds.rows_max or all(one.session in chosen for one in waiting if one.rows > 1)
    longest = sorted(waiting, key=lambda one: -one.rows)[: len(chosen)]
    assert sorted(one.rows for one in waiting if one.session in chosen) == sorted(one.rows for one in longest)


def test_what_is_over_age_is_coalesced_whatever_the_size() -> None:
    bounds = OutboxSettings(age_max_s=60)
    waiting = [Backlog("old", 1, 10, 0), Backlog("young", 5, 10, 50_000)]
    assert sessions_to_coalesce(waiting, rows=6, bytes_held=20, now_ms=70_000, bounds=bounds) == ["old"]


@given(st.integers(0, 100_000))
def test_events_fill_a_tenth_at_most(events: int) -> None:
    bounds = OutboxSettings(rows_max=1000)
    assert events - events_to_drop(events, bounds) == min(events, 100)
