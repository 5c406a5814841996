"""What one RAE leaves in the broker's queue while Kafka is away, however long: 70 messages at most."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dmpd.local_registry.outbox import PROBE_MAX_S, WINDOW_ROWS_MAX, Row, Window
from dmpd.local_registry.unproven import MARKS_FROM, UNPROVEN_MAX

PROMISED = 70
"""By RAE; on top of what needs a proof comes a last word: ``draining``, ``disconnected``, the will."""
STATUS_EACH_S = 60
KAFKA_PER_S = 40
"""So many of one RAE's messages the bridge takes in a second: its share of what many RAEs left."""

OUTAGES = st.sampled_from(("kafka down", "bridge away", "durable lost", "broker drops"))


@dataclass
class Fleet:
    """One RAE of many, second by second, with the way to Kafka behind it. It sends as the uplink does."""

    random: Random
    rows_per_s: float
    checkpoints_per_s: float
    now_s: float = 0.0
    seq: int = 0
    store: dict[int, Row] = field(default_factory=dict)
    queue: list[int] = field(default_factory=list)
    """In the broker, for the bridge: the ``seq`` of each message, 0 = it has none."""
    kafka: Counter[int] = field(default_factory=Counter)
    told: list[int] = field(default_factory=list)
    trouble: str | None = None
    longest: int = 0
    others_waiting: int = 0
    others_sent: int = 0

    def __post_init__(self) -> None:
        self.window = Window(self.random.random)
        self.connect()

    def connect(self) -> None:
        self.window.connected(self.now_s, run=1)
        self.status_due = True
        self.others_waiting = 1

    def run(self, seconds: int, trouble: str | None) -> None:
        self.trouble = trouble
        for _ in range(seconds):
            self.commit()
            if not self.window.holding_back(self.now_s):
                self.others_waiting += self.random.random() < self.checkpoints_per_s
                self.status_due |= int(self.now_s) % STATUS_EACH_S == 0
            self.pump()
            self.bridge()
            self.longest = max(self.longest, len(self.queue))
            self.now_s += 1.0

    def commit(self) -> None:
        while self.random.random() < self.rows_per_s / (1 + self.rows_per_s):
            self.seq += 1
            self.store[self.seq] = Row(self.seq, "s", "change", 1, 0, b"x")
        self.load()

    def load(self) -> None:
        loaded = len(self.window)
        self.window.load(islice(self.store.values(), loaded, loaded + self.window.room[0]))

    def pump(self) -> None:
        while self.one_message():
            pass

    def one_message(self) -> bool:
        window, now_s = self.window, self.now_s
        ask_qos = 1 if self.status_due and not window.broker_full else window.ask(now_s)
        if ask_qos is not None:
            self.status_due &= window.broker_full
            mark = window.next_mark()
            self.arrive(0, mark, ask_qos, window.sent_other(now_s, qos=ask_qos, mark=mark))
        elif (due := window.due(now_s)) is not None:
            self.arrive(due.row.seq, due.row.seq, due.qos, window.sent(due.row.seq, due.qos, now_s))
        elif self.others_waiting and not window.broker_full and not window.holding_back(now_s):
            self.others_waiting -= 1
            self.others_sent += 1
            self.arrive(0, 0, 1, window.sent_other(now_s))
        else:
            return False
        return True

    def arrive(self, row: int, number: int, qos: int, place: int) -> None:
        """At the broker, which keeps for an absent bridge what came at QoS 1, and answers that with success."""
        if qos == 0:
            if self.trouble in (None, "durable lost"):
                self.store_in_kafka(number)  # past all that waits
            return
        if self.trouble != "broker drops":
            self.queue.append(number)
        self.window.answered(row, place, 0, self.now_s)

    def bridge(self) -> None:
        if self.trouble in ("kafka down", "bridge away"):
            return
        for _ in range(min(KAFKA_PER_S, len(self.queue))):
            self.store_in_kafka(self.queue.pop(0))
        told, self.told = self.told, []
        if told and self.trouble != "durable lost":
            for row in self.window.durable([(seq, seq) for seq in sorted(set(told))], self.now_s):
                assert self.kafka[row.seq], "a row left that Kafka does not have"
                del self.store[row.seq]
            self.load()

    def store_in_kafka(self, number: int) -> None:
        self.kafka[number] += 1
        if number:
            self.told.append(number)


@given(
    seed=st.integers(0, 2**32),
    rows_per_s=st.sampled_from((0.0, 0.01, 0.2, 1.0)),
    checkpoints_per_s=st.sampled_from((0.0, 0.3, 3.0)),
    before_s=st.integers(0, 200),
    outage_s=st.sampled_from((600, 3_600)),
)
@settings(max_examples=40, deadline=None)
def test_queue_stays_within_its_bound_however_long_kafka_is_away(
    seed: int, rows_per_s: float, checkpoints_per_s: float, before_s: int, outage_s: int
) -> None:
    one = Fleet(Random(seed), rows_per_s, checkpoints_per_s)
    one.run(before_s, None)
    one.longest = len(one.queue)
    one.run(outage_s, "kafka down")
    assert one.longest <= UNPROVEN_MAX < PROMISED - 3
    one.rows_per_s = 0.0
    one.run(60 + len(one.store) // 20, None)
    assert one.longest <= UNPROVEN_MAX, "it grew when Kafka came back"
    assert len(one.queue) <= 2, "Kafka is back and the queue is not taken"
    copies = sum(count - 1 for number, count in one.kafka.items() if 0 < number < MARKS_FROM)
    assert copies <= WINDOW_ROWS_MAX // 4, "a storm of copies"


@given(
    st.integers(0, 2**32),
    st.sampled_from((0.0, 0.05, 1.0)),
    st.lists(st.tuples(OUTAGES, st.integers(1, 900), st.integers(1, 120)), max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_nothing_waits_for_ever_and_the_bound_holds_through_any_troubles(
    seed: int, rows_per_s: float, troubles: list[tuple[str, int, int]]
) -> None:
    one = Fleet(Random(seed), rows_per_s, checkpoints_per_s=0.3)
    for trouble, bad_s, good_s in troubles:
        one.run(bad_s, trouble)
        one.run(good_s, None)
    assert one.longest <= PROMISED
    one.rows_per_s = 0.0
    one.run(int(PROBE_MAX_S) + 120, None)
    assert not one.store, "rows that never become durable"
    before = one.others_sent
    one.run(600, None)
    assert one.others_sent > before, "checkpoints wait for ever"
    assert len(one.queue) <= 2


def test_a_quiet_rae_asks_often_enough_to_send_all_checkpoints_at_once() -> None:
    one = Fleet(Random(1), rows_per_s=0.0, checkpoints_per_s=0.0)
    one.run(5, None)
    one.others_waiting = 1_000
    one.run(60, None)
    assert one.others_waiting == 0


def test_connecting_again_in_an_outage_adds_a_row_and_what_begins_a_connection() -> None:
    one = Fleet(Random(1), rows_per_s=1.0, checkpoints_per_s=0.3)
    one.run(120, "kafka down")
    before = len(one.queue)
    for _ in range(10):
        one.connect()
        one.run(60, "kafka down")
    assert len(one.queue) <= max(before, UNPROVEN_MAX) + 10
