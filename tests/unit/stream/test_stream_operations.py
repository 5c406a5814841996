"""Halting, skipping, pausing: what moves, what stays, and how much of it at a time."""

import pytest

from dmpd.runtime.health import ActionRefusedError
from dmpd.runtime.metrics import render
from dmpd.stream import operations
from dmpd.stream.control import Control, Request, Target
from dmpd.stream.frames import Frame, Position
from dmpd.stream.invalid_window import INVALID_MAX
from dmpd.stream.operations import Operations
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus
from tests.unit.stream.test_stream_outgoing import ScriptedProducer

SETTINGS = StreamSettings(ring_bytes=1 << 20, max_record_bytes=4096)
COUNT = 3000


class Silencer:
    """Stands for the workers: notes whose was killed."""

    def __init__(self):
        self.silenced = []

    def silence(self, partition):
        self.silenced.append(partition.number)


class Rig:
    """One partition with records in its ring, none released."""

    def __init__(self, *, keys=40, per_minute=10_000):
        self.producer = ScriptedProducer()
        self.producer.room = 100_000
        self.outgoing = OutgoingRecords(self.producer, topic="t", dead_letter_topic="d", letters_per_minute=per_minute)
        self.workers = Silencer()
        self.operations = Operations(self.workers, self.outgoing, Control())
        self.partition = Partition(0, epoch=1, next_offset=0, settings=SETTINGS)
        for start in range(0, COUNT, 500):
            offsets = range(start, start + 500)
            key = [b"%d" % (n % keys) for n in offsets]
            self.partition.place(Frame(offsets, [0] * 500, key, [b"v"] * 500, None))
        assert self.partition.ledger.placed_records == COUNT
        self.starts = [stretch.first.frame for stretch in self.partition.ledger.unreleased()]

    def at(self, ordinal):
        return Position(self.starts[ordinal // 500], ordinal % 500)

    def judge(self, ordinals):
        for n in ordinals:
            self.outgoing.give_up(self.partition, self.at(n), reason="bad", detail="")

    def tend(self, *, is_draining=False):
        self.operations.tend({0: self.partition}, is_draining=is_draining)

    def order(self, verb, partition=0, *, is_draining=False):
        request = Request(verb, Target(partition=partition))
        return self.operations._carry_out(request, {0: self.partition}, is_draining=is_draining)[0]

    def deliver(self):
        """Let Kafka take all that waits; returns it."""
        found = []
        while self.outgoing.backlog:
            self.outgoing.pump(0.0)
            found += [self.producer.answer() for _ in range(len(self.producer.taken))]
        return found

    @property
    def state(self):
        return self.partition.standstill.state


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.partition.close()


def halt(rig):
    rig.judge(range(INVALID_MAX + 1))
    rig.tend()
    assert rig.state == "halted"


def test_the_verdict_too_many_halts_and_no_other(rig):
    rig.judge(range(INVALID_MAX))
    rig.tend()
    assert (rig.state, rig.workers.silenced, rig.partition.wants_care) == ("running", [], False)
    rig.judge([INVALID_MAX])
    assert rig.partition.wants_care
    rig.tend()
    rig.tend()
    assert (rig.state, rig.workers.silenced) == ("halted", [0])
    assert rig.partition.standstill.holds_fetching
    assert rig.partition.picture(committed=None)["halted_by"]["invalid"] == INVALID_MAX + 1


def test_few_sources_are_limited_and_halt_nothing():
    rig = Rig(keys=9, per_minute=5)
    rig.judge(range(COUNT))
    rig.tend()
    assert rig.state == "running"
    rig.partition.release(Position(rig.partition.ring.published, 0))
    assert len(rig.deliver()) == 9 * 5
    assert rig.partition.candidate().offset == COUNT  # those without a letter are handled too
    assert rig.partition.dead_letters == COUNT
    rig.partition.close()


def test_resumed_it_is_not_halted_by_what_was_judged_before(rig):
    halt(rig)
    assert rig.order("resume").changed
    assert rig.state == "running"
    rig.judge(range(INVALID_MAX + 1))  # the next worker says the same of the same records
    rig.judge(range(INVALID_MAX + 1, 2 * INVALID_MAX + 1))
    rig.tend()
    assert rig.state == "running"
    rig.judge([2 * INVALID_MAX + 1])
    rig.tend()
    assert rig.state == "halted"
    assert len(rig.deliver()) == 2 * INVALID_MAX + 2  # one letter per record


def test_a_pause_outlasts_a_halt_and_resume_ends_both(rig):
    assert rig.order("pause").changed
    halt(rig)
    rig.partition.standstill.go_on()
    assert rig.state == "paused"
    assert rig.order("resume").changed
    assert not rig.partition.standstill.holds_fetching
    assert not rig.order("resume").changed


def test_skipping_goes_by_bounded_steps_and_each_record_gets_one_letter(rig):
    halt(rig)
    judged = rig.deliver()
    assert rig.order("skip").changed
    assert not rig.order("skip").changed
    letters, turns = [], 0
    while rig.state == "skipping":
        rig.tend()
        assert rig.outgoing.backlog <= operations._SKIP_BACKLOG_MAX + 500
        letters += rig.deliver()
        turns += 1
        assert turns < 100
    assert turns >= 2
    assert {headers["dmpd-reason"] for *_, headers in letters} == {b"skipped"}
    assert {headers["dmpd-by"] for *_, headers in letters} == {b"operator"}
    offsets = [int(headers["dmpd-offset"]) for *_, headers in [*judged, *letters]]
    assert sorted(offsets) == list(range(COUNT))
    assert rig.state == "running"
    assert rig.partition.candidate().offset == COUNT
    assert rig.partition.ledger.is_complete


def test_skipped_records_are_committed_only_when_their_letters_are_there(rig):
    halt(rig)
    rig.order("skip")
    rig.tend()
    rig.outgoing.pump(0.0)
    assert rig.partition.candidate().offset == 0
    rig.deliver()
    assert rig.partition.candidate().offset >= 500


def test_a_partition_begun_anew_stands_as_still_as_before(rig):
    rig.order("pause")
    halt(rig)
    rig.order("skip")
    fresh = Partition(0, epoch=2, next_offset=0, settings=SETTINGS)
    fresh.standstill.inherit(rig.partition.standstill)
    assert fresh.standstill.state == "halted"
    fresh.standstill.go_on()
    assert fresh.standstill.state == "paused"
    fresh.close()


@pytest.mark.parametrize("verb", ["pause", "resume", "skip"])
def test_nothing_is_ordered_of_a_draining_stream_or_of_a_foreign_partition(rig, verb):
    with pytest.raises(ActionRefusedError, match="is draining"):
        rig.order(verb, is_draining=True)
    with pytest.raises(ActionRefusedError, match="partition 5 is not owned here"):
        rig.order(verb, 5)


def test_the_program_is_degraded_by_what_is_halted_and_not_by_what_is_paused(rig):
    rig.order("pause")
    assert operations.degraded_reasons({0: rig.partition}, 0.0) == []
    halt(rig)
    [reason] = operations.degraded_reasons({0: rig.partition, 3: rig.partition}, 0.0)
    assert reason.startswith("partitions 0, 3 are halted")


class SaysOfItsSink:
    """A worker's life, as far as it says how its sink is."""

    pid = 1
    has_closed = False

    def __init__(self, state, detail):
        self.state, self.detail = state, detail


def test_a_sink_that_takes_nothing_is_shown_and_after_a_while_a_reason_to_be_degraded(rig):
    partition = rig.partition
    partition.life = SaysOfItsSink("waiting_sink", "connection refused")
    partition.note_waiting(100.0)
    partition.note_waiting(110.0)
    assert (partition.state, partition.waits_for) == ("waiting", "connection refused")
    assert operations.degraded_reasons({0: partition}, 114.0) == []
    both = {0: partition, 2: partition}
    assert operations.degraded_reasons(both, 116.0) == ["partitions 0, 2: the sink takes nothing: connection refused"]
    assert rig.order("resume").said == "waits for its sink and goes on by itself: connection refused"
    assert "waits for its sink" in rig.order("skip").said
    partition.life.state = "ready"
    partition.release(rig.at(500))
    assert (partition.state, partition.waits_for, partition.waiting_s(200.0)) == ("running", None, 0.0)
    partition.life = None


def test_a_sink_that_needs_a_person_is_an_alarm_at_once(rig):
    rig.partition.life = SaysOfItsSink("halted_sink", "permission denied")
    rig.partition.note_waiting(100.0)
    assert rig.partition.state == "halted"
    assert rig.partition.picture(committed=None)["waits_for"] == "permission denied"
    assert operations.degraded_reasons({0: rig.partition}, 100.0) == [
        "partition 0: the sink takes nothing: permission denied"
    ]
    halt(rig)
    assert rig.partition.state == "halted"
    rig.partition.life = None


def test_the_alarm_is_a_gauge_and_what_an_operator_paused_is_not_full(rig):
    full = rig.partition.picture(committed=None) | dict.fromkeys(("lag", "lag_s", "eta_s")) | {"paused": True}
    full |= {"paused_s": 0.0, "oldest_age_s": 0.0}
    pictures = {
        n: full | {"state": state} for n, state in enumerate(["running", "halted", "skipping", "paused", "waiting"])
    }
    status = StreamStatus()
    status.publish(SETTINGS, pictures, commit_unanswered_s=0.0)
    shown = render().decode().splitlines()
    status.publish(SETTINGS, {}, commit_unanswered_s=0.0)
    for line in (
        "dmpd_stream_halted_partitions 2.0",
        "dmpd_stream_operator_paused_partitions 1.0",
        "dmpd_stream_paused_partitions 2.0",
        "dmpd_stream_waiting_partitions 1.0",
    ):
        assert line in shown
