"""The thread that asks for checkpoints, on a real database and a Kafka in memory."""

import contextlib
import time
from datetime import UTC, datetime

import pytest

from dmpd.cloud_registry import metrics, stale
from dmpd.cloud_registry.marks import Marks
from dmpd.cloud_registry.reconcile import BEGIN
from dmpd.cloud_registry.reconciler import Reconciler
from dmpd.cloud_registry.settings import ReconcileSettings
from dmpd.model.codec import decode_record
from dmpd.model.messages import Roster, Status
from dmpd.model.requests import lifetime_of
from dmpd.model.topics import partition_of
from dmpd.runtime.database import DatabaseUnreachableError, connect
from dmpd.runtime.kafka_memory import MemoryKafka, MemoryProducer
from tests.support.messages import AT, EPOCH, RAE, change, checkpoint, closed, session_id
from tests.support.rows import OutputTwin, make_handler, record_of
from tests.support.services import only_postgresql

pytestmark = pytest.mark.services

PARTITIONS = 4
FAST = ReconcileSettings(interval_s=0.01)


@pytest.fixture
def fill(connection, postgres):
    handler = make_handler(postgres, partition=3)

    def hand(*messages, headers=()):
        handler.handle([record_of(message, i, headers) for i, message in enumerate(messages)], OutputTwin())

    yield hand
    handler.close()


class Rig:
    """A reconciler whose database can be away and whose Kafka is in memory."""

    def __init__(self, database, settings=FAST, owned=(1, 3)):
        self.database = database
        self.away = False
        self.kafka = MemoryKafka()
        self.kafka.create_topic("dmp.cmd", partitions=PARTITIONS)
        self.owned = owned
        self.reconciler = Reconciler(
            settings,
            connect=self.connect,
            make_producer=lambda: MemoryProducer(self.kafka),
            topic="dmp.cmd",
            partitions=lambda: PARTITIONS,
            owned=lambda: self.owned,
        )

    def connect(self):
        if self.away:
            raise DatabaseUnreachableError("away in this test")
        return connect(self.database, application="test-reconciler")

    def asked(self):
        """Sessions asked for so far, in order, each record as a bridge would read it."""
        found = []
        for partition, records in enumerate(self.kafka.topics["dmp.cmd"]):
            for record in records:
                topic, said = decode_record(record.key, record.value)
                assert (topic.requester, said.verb, lifetime_of(record.headers)) == ("svc-registry", "checkpoint", 60)
                assert partition == partition_of(topic.rae, PARTITIONS)
                found.append((topic.rae, topic.session))
        return found

    @property
    def passes(self):
        return self.reconciler.status()["passes"]

    def until(self, condition, what):
        deadline_s = time.monotonic() + 30.0
        while not condition() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert condition(), f"not within 30 s: {what}; {self.reconciler.status()}"

    def until_passed(self):
        """A pass that began after this call has ended."""
        goal = self.passes + 2
        self.until(lambda: self.passes >= goal, "two passes")


@contextlib.contextmanager
def running(database, **more):
    rig = Rig(database, **more)
    rig.reconciler.start()
    try:
        yield rig
    finally:
        rig.reconciler.stop()


def status(state="ready", run=1):
    return Status(v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, state=state, run=run, seq_high=9)


def now_header():
    return [("mqtt-received-at", time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()).encode())]


def test_stale_rows_are_asked_once_and_others_are_not(fill, postgres):
    gone = Roster(
        v=1,
        rae=RAE,
        session="rae",
        at=AT,
        epoch=EPOCH,
        first=session_id(6),
        last=session_id(6),
        sessions=(),
        seq_high=9,
    )
    fill(
        checkpoint(1, session=session_id(1)),
        change(3, session=session_id(2)),
        change(3, session=session_id(3)),
        closed(4, session=session_id(3)),
        change(3, session=session_id(6)),
        gone,
    )
    with running(postgres) as rig:
        rig.until(rig.asked, "the stale session is asked")
        rig.until_passed()
        assert rig.asked() == [(RAE, session_id(2))]
        assert rig.reconciler.status()["stale"] == 1
        assert rig.reconciler.status()["last_pass"]["waiting"] == 1
        fill(checkpoint(3, session=session_id(2)))
        rig.until(lambda: rig.reconciler.status()["last_pass"]["stale"] == 0, "healed")
        fill(change(5, session=session_id(2)))
        rig.until(lambda: len(rig.asked()) == 2, "a new gap is asked at once, without the old one's backoff")


def test_rows_of_partitions_of_others_are_theirs(fill, postgres):
    fill(change(3))
    with running(postgres, owned=(0, 1, 2)) as rig:
        rig.until_passed()
        assert rig.asked() == []
        rig.owned = (3,)
        rig.until(lambda: rig.asked() == [(RAE, session_id(1))], "ours now")


def test_a_rae_that_is_away_is_asked_when_it_is_back(fill, postgres):
    fill(status("lost"), change(3), headers=now_header())
    with running(postgres) as rig:
        rig.until(lambda: rig.reconciler.status()["last_pass"]["unreachable"] == 1, "seen as unreachable")
        assert rig.asked() == []
        fill(status("ready", run=2), headers=now_header())
        rig.until(lambda: rig.asked() == [(RAE, session_id(1))], "asked")


def test_an_absent_database_costs_time_only(fill, postgres):
    fill(change(3))
    rig = Rig(postgres)
    rig.away = True
    rig.reconciler.start()
    try:
        rig.until(lambda: "away in this test" in (rig.reconciler.status()["problem"] or ""), "it says so")
        rig.away = False
        rig.until(rig.asked, "asked")
        rig.until(lambda: rig.reconciler.status()["problem"] is None, "all is well")
    finally:
        rig.reconciler.stop()


def test_while_kafka_is_away_requests_do_not_pile_up(fill, postgres):
    fill(*(change(3, session=session_id(number)) for number in range(1, 401)))
    with running(postgres, settings=ReconcileSettings(interval_s=0.01, requests_per_s=10_000)) as rig:
        rig.kafka.up = False
        rig.until(lambda: rig.reconciler._outstanding >= 200, "the bound is reached")
        rig.kafka.up = True
        rig.until(lambda: len(rig.asked()) >= 400, "everybody is asked when Kafka is back")
        assert sorted(set(rig.asked())) == sorted((RAE, session_id(number)) for number in range(1, 401))


def test_a_database_that_went_back_is_counted_once_and_nothing_else_is(fill, connection, postgres):
    only_postgresql()
    before = metrics.REWINDS._value.get()
    fill(change(3))
    with running(postgres) as rig:
        rig.until_passed()
        connection.execute("CREATE TABLE backup AS TABLE registry_mark")
        rig.away = True  # an outage is none
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test-reconciler'"
        )
        rig.until(lambda: rig.reconciler.status()["problem"], "it is away")
        rig.away = False
        rig.until_passed()
        assert metrics.REWINDS._value.get() == before
        connection.execute("UPDATE registry_mark AS m SET mark = b.mark FROM backup AS b WHERE m.instance = b.instance")
        rig.until(lambda: metrics.REWINDS._value.get() == before + 1, "counted")
        rig.until_passed()
        connection.execute("DELETE FROM registry_mark")
        rig.until(lambda: metrics.REWINDS._value.get() == before + 2, "a backup of before its start")
        rig.until_passed()
        assert metrics.REWINDS._value.get() == before + 2


def test_marks_of_instances_that_ended_long_ago_are_removed(connection):
    Marks().went_back(connection)
    connection.execute("UPDATE registry_mark SET marked_at = now() - INTERVAL '2 days'")
    other = Marks()
    assert [other.went_back(connection), other.went_back(connection)] == [False, False]
    assert connection.execute("SELECT mark FROM registry_mark").fetchall() == [(2,)]


def test_stop_without_start_returns(postgres):
    Rig(postgres).reconciler.stop()


def test_pages_go_through_everything_in_order(fill, connection):
    fill(*(change(3, session=session_id(number)) for number in range(1, 8)))
    cursor, seen = BEGIN, []
    while page := stale.read_page(connection, (3,), after=cursor, rows_max=3, now=datetime.now(UTC)):
        seen += [row.session for row in page]
        cursor = page[-1].cursor
    assert seen == [session_id(number) for number in range(1, 8)]
    assert stale.count(connection, (3,)) == 7
    assert stale.count(connection, (0,)) == 0
