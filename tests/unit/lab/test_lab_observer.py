"""The observer's order of looking: lost only when somebody let go of what the next one does not have."""

import msgspec
import pytest

from dmpd.lab.observation import DatabaseTotals, EdgeTotals, LanDevice
from dmpd.lab.observer import KafkaOffsets, Observer, Probes
from dmpd.lab.tally import KafkaTally
from dmpd.model.topics import info_topic
from dmpd.runtime.kafka_reader import ReadRecord

SESSION = "7b0a36d2-6c1f-4c3f-9c30-0b1f7f7a2f10"


def record(offset, rev, *, epoch=1, kind="change"):
    body = {
        "v": 1,
        "kind": kind,
        "rae": "sim-0001",
        "session": SESSION,
        "epoch": epoch,
        "rev": rev,
        "at": "2026-11-25T04:35:48.123Z",
    }
    body |= {"set": {"state": "online"}} if kind == "change" else {"record": {"state": "online"}}
    key = info_topic("sim-0001", SESSION).encode()
    return ReadRecord(
        topic="dmp.info",
        partition=0,
        offset=offset,
        timestamp_ms=0,
        key=key,
        value=msgspec.json.encode(body),
        headers=[],
    )


class Platform:
    """Every party of the pipeline, as numbers that a test sets."""

    def __init__(self):
        self.log = []
        self.committed_offset = 0
        self.edge = EdgeTotals()
        self.revs = 0
        self.silent = set()
        self._read = 0

    def probes(self):
        return Probes(
            edge=lambda: self._answer("edge", self.edge),
            offsets=lambda: self._answer("kafka", KafkaOffsets(self.ends(), {0: self.committed_offset})),
            bridge_in_flight=lambda: self._answer("bridge", 0),
            ring_bytes=lambda: self._answer("ring", 0),
            database=self,
        )

    def ends(self):
        return {0: len(self.log)}

    def totals(self):
        return self._answer("database", DatabaseTotals(revs=self.revs))

    def delays_ms(self):
        return [5.0]

    def lan_devices(self):
        return self._answer("database", [LanDevice(session="s", hostname="dut-1", state="online")])

    def read(self, timeout_s, records_max):
        found, self._read = self.log[self._read :], len(self.log)
        return found

    def _answer(self, who, value):
        if who in self.silent:
            raise OSError(who)
        return value


@pytest.fixture
def platform():
    return Platform()


@pytest.fixture
def observer(platform):
    return Observer(platform.probes(), KafkaTally(platform))


def test_changes_on_their_way_are_not_lost(platform, observer):
    platform.edge = EdgeTotals(committed=3, outbox_rows=1)
    platform.log = [record(0, 1), record(1, 2)]
    seen = observer.look()
    assert (seen.in_kafka, seen.lag, seen.lost) == (2, 2, 0)


def test_redelivered_changes_count_once_and_those_of_another_epoch_again(platform, observer):
    platform.log = [record(0, 1), record(1, 1), record(2, 1, kind="checkpoint"), record(3, 1, epoch=2)]
    assert observer.look().in_kafka == 2


def test_what_left_the_outbox_and_never_came_to_kafka_is_lost(platform, observer):
    platform.edge = EdgeTotals(committed=3, outbox_rows=0)
    platform.log = [record(0, 1)]
    assert observer.look().lost == 2


def test_what_the_group_committed_and_the_database_lacks_is_lost(platform, observer):
    platform.edge = EdgeTotals(committed=2, outbox_rows=0)
    platform.log = [record(0, 1), record(1, 2)]
    platform.revs = 1
    assert observer.look().lost == 0  # not committed: still on its way
    platform.committed_offset = 2
    assert observer.look().lost == 1
    platform.revs = 2
    assert observer.look().lost == 0


def test_only_the_part_that_was_committed_must_be_in_the_database(platform, observer):
    platform.log = [record(0, 1)]
    observer.look()
    platform.log.append(record(1, 2))
    platform.committed_offset = 1
    platform.revs = 1
    assert observer.look().lost == 0
    platform.revs = 0
    assert observer.look().lost == 1


@pytest.mark.parametrize("who", ["edge", "kafka", "bridge", "ring", "database"])
def test_a_silent_party_silences_nobody_else(platform, observer, who):
    platform.edge = EdgeTotals(committed=1)
    platform.log = [record(0, 1)]
    platform.silent = {who}
    seen = observer.look()
    answers = {
        "edge": seen.edge,
        "kafka": seen.in_kafka,
        "bridge": seen.in_flight,
        "ring": seen.ring_bytes,
        "database": seen.database,
    }
    assert [name for name, value in answers.items() if value is None] == [who]
    assert seen.lost == 0


def test_delays_are_taken_once(platform, observer):
    observer.look()
    assert observer.take_delays_ms() == [5.0]
    assert observer.take_delays_ms() == []


def test_what_is_no_message_counts_for_nothing(platform, observer):
    bad = record(0, 1)._replace(value=b"{")
    platform.log = [bad, record(1, 1)]
    assert observer.look().in_kafka == 1
