"""A record belongs to the assignment that was in force when its call began, or to none."""

import time

import pytest
from confluent_kafka import KafkaError, Message

from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import intake as intake_module
from dmpd.stream import parent as parent_module
from dmpd.stream.drain import StopWatch
from dmpd.stream.invalid_window import Verdicts
from dmpd.stream.parent import Parent
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus

SETTINGS = StreamSettings(ring_bytes=1 << 16, max_record_bytes=4096)


class ScriptedConsumer:
    """``during_consume`` runs inside ``consume``, as callbacks of a rebalance do."""

    def __init__(self, kafka, settings, listener):
        self.listener = listener
        self.first = None
        self.rest = []
        self.during_consume = lambda: None
        self.sought = []

    def poll(self, timeout_s):
        return self.first

    def consume(self, records_max):
        self.during_consume()
        return self.rest

    def seek(self, partition, offset):
        self.sought.append((partition, offset))

    def start_at(self, partition, offset):
        self.sought.append((partition, offset))

    def subscribe(self):
        return

    def pause(self, partitions):
        return

    def commit(self, offsets):
        return

    def commit_confirmed(self, offsets, timeout_s):
        return True


class NoServer:
    def is_alive(self):
        return True


class NoProducer:
    fatal = None

    def poll(self, timeout_s):
        return 0


@pytest.fixture
def parent(monkeypatch):
    monkeypatch.setattr(parent_module, "StreamConsumer", ScriptedConsumer)
    lifecycle = Lifecycle("test")
    parent = Parent(
        KafkaSettings(),
        SETTINGS,
        server=NoServer(),
        producer=NoProducer(),
        lifecycle=lifecycle,
        status=StreamStatus(),
        stop_watch=StopWatch(lifecycle, timeout_s=SETTINGS.drain_timeout_s),
    )
    parent._join()
    parent.on_assigned({0: 5, 1: 0})
    yield parent
    parent.on_lost(list(parent._partitions))


def record(partition, offset):
    return Message(topic="t", partition=partition, offset=offset, key=b"k", value=b"v", timestamp=(1, 1))


def placed(parent, partition):
    return parent._partitions[partition].ledger.placed_records


def test_records_go_to_their_partitions(parent):
    parent._consumer.first = record(0, 5)
    parent._consumer.rest = [record(1, 0), record(0, 6)]
    parent._fetch_or_rebuild(0.0)
    assert (placed(parent, 0), placed(parent, 1)) == (2, 1)


@pytest.mark.parametrize(("committed", "target"), [(3, 3), (None, None)])
def test_a_record_of_a_revoked_and_reassigned_partition_is_dropped_and_fetched_again(parent, committed, target):
    def rebalance():
        parent.on_revoked([0])
        parent.on_assigned({0: committed})

    parent._consumer.first = record(0, 5)
    parent._consumer.during_consume = rebalance
    parent._consumer.rest = [record(0, 6), record(1, 0)]
    parent._fetch_or_rebuild(0.0)
    assert (placed(parent, 0), placed(parent, 1)) == (0, 1)
    assert parent._consumer.sought == [(0, target)]
    parent._consumer.during_consume = lambda: None
    parent._consumer.first = record(0, 3)
    parent._consumer.rest = []
    parent._fetch_or_rebuild(0.0)
    assert placed(parent, 0) == 1


def test_a_record_of_a_partition_that_is_gone_is_dropped(parent):
    parent._consumer.first = record(0, 5)
    parent._consumer.during_consume = lambda: parent.on_lost([0])
    parent._fetch_or_rebuild(0.0)
    assert list(parent._partitions) == [1]
    assert parent._consumer.sought == []


def test_a_record_that_comes_alone_is_judged_as_strictly(parent):
    def rebalance():
        parent.on_revoked([0])
        parent.on_assigned({0: 3})

    parent._consumer.first = record(7, 5)
    parent._fetch_or_rebuild(0.0)
    assert sorted(parent._partitions) == [0, 1]
    parent._consumer.first = record(0, 5)
    parent._consumer.during_consume = rebalance
    parent._fetch_or_rebuild(0.0)
    assert placed(parent, 0) == 0
    assert parent._consumer.sought == [(0, 3)]


def test_what_is_lost_begins_behind_the_records_that_came_before_the_error(parent):
    """The client hands on what it had fetched, and in the same call that it can fetch no further."""
    gone = Message(topic="t", partition=0, offset=-1, error=KafkaError(KafkaError._AUTO_OFFSET_RESET))
    parent._consumer.first = record(0, 5)
    parent._consumer.rest = [record(0, 6), gone]
    parent._fetch_or_rebuild(0.0)
    parent._consumer.first, parent._consumer.rest = record(0, 20), []
    parent._fetch_or_rebuild(0.0)
    assert parent._partitions[0].lost_offsets == 20 - 7


def test_a_drain_tells_what_a_rebalance_hands_to_the_next_owner(parent, caplog):
    """Nothing of it is lost, so it is no failure of the drain; but not all that was fetched was processed here."""
    parent._consumer.first, parent._consumer.rest = record(0, 5), [record(0, 6)]
    parent._fetch_or_rebuild(0.0)
    parent._begin_drain(time.monotonic())
    parent.on_revoked([0])
    assert "the next owner goes on with: 0: 2 records from offset 5" in caplog.text
    assert parent._drain.exit_code == 0


def test_late_answers_of_an_earlier_assignment_commit_nothing(parent):
    """A zombie's commit is accepted by the broker: only current assignments are ever candidates."""
    parent._consumer.first = record(0, 5)
    parent._fetch_or_rebuild(0.0)
    old = parent._partitions[0].ledger
    parent.on_lost([0])
    parent.on_assigned({0: 900})
    ticket = old.hold()
    old.end_hold(ticket)
    assert parent._candidates([0])[0].offset == 900


def test_a_halted_partition_that_is_begun_anew_stays_halted(parent):
    parent._partitions[0].standstill.verdicts = Verdicts(501, 10, [])
    parent._partitions[0].standstill.halt()
    parent._partitions[1].standstill.is_paused = True
    for number in (0, 1):
        parent.reset(number, cause="ring_corrupted", detail="", now_s=1.0)
    parent._look_after_all(1.0)  # too early for a worker of the other one
    assert [parent._partitions[n].standstill.state for n in (0, 1)] == ["halted", "paused"]
    assert all(parent._partitions[n].flow.paused for n in (0, 1))
    assert parent._partitions[0].life is None


def test_a_partition_that_is_begun_anew_again_and_again_waits_longer_and_says_what_it_lost(parent):
    parent._partitions[0].lost_offsets = 7
    waits_s = []
    for _ in range(4):
        parent.reset(0, cause="ring_corrupted", detail="", now_s=10.0)
        waits_s.append(parent._partitions[0].restart_at_s - 10.0)
    # Shortened at random by up to a half.
    assert all(0.5 <= wait_s / (SETTINGS.worker_backoff_first_s * 2**n) <= 1.0 for n, wait_s in enumerate(waits_s))
    assert parent._partitions[0].lost_offsets == 7


@pytest.mark.parametrize("by_seek", [False, True])
def test_a_partition_that_is_begun_anew_while_draining_is_not_fetched(parent, monkeypatch, by_seek):
    """To begin anew makes the client fetch it: that is the last thing it is told."""
    told = []
    monkeypatch.setattr(parent._consumer, "pause", lambda numbers: told.append(("pause", *numbers)))
    monkeypatch.setattr(parent._consumer, "start_at", lambda number, _offset: told.append(("start", number)))
    monkeypatch.setattr(parent._consumer, "unpause_at", lambda number, _offset: told.append(("start", number)), False)
    parent._begin_drain(10.0)
    parent.reset(0, cause="ring_corrupted", detail="", now_s=10.0, by_seek=by_seek)
    assert told[-2:] == [("start", 0), ("pause", 0)]


def test_a_few_records_of_different_partitions_need_no_sorting(parent, monkeypatch):
    monkeypatch.setattr(intake_module, "by_partition", None)
    parent._consumer.first = record(0, 5)
    parent._consumer.rest = [record(1, 0)]
    placed_in = parent._fetch_or_rebuild(0.0)
    assert [partition.number for partition in placed_in] == [0, 1]
    assert (placed(parent, 0), placed(parent, 1)) == (1, 1)


def test_what_comes_after_a_pause_is_judged_as_strictly(parent, monkeypatch):
    """Then nothing is polled for: the one call that gives records may also change assignments."""
    monkeypatch.setattr(parent._intake._gathering, "wait_s", lambda _: 1e-6)

    def rebalance():
        parent.on_revoked([0])
        parent.on_assigned({0: 3})

    parent._consumer.rest = [record(0, 5), record(1, 0)]
    parent._consumer.during_consume = rebalance
    parent._fetch_or_rebuild(0.0)
    assert (placed(parent, 0), placed(parent, 1)) == (0, 1)
    assert parent._consumer.sought == [(0, 3)]
