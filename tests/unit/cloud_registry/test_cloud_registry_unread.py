"""Changes of rows that nobody has read: taken where they go on, left alone where they do not, in one statement."""

import contextlib
import json
from functools import partial

import msgspec
import pytest
from msgspec import Raw

from dmpd.cloud_registry import sink, straight, straight_way, unread
from dmpd.cloud_registry.scan import device_topic, scan
from dmpd.model.messages import Roster
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from tests.support import sql_faults
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, session_id
from tests.support.rows import OutputTwin, events_of, make_handler, record_of, rows_of
from tests.support.services import only_postgresql

RECORD = DeviceRecord(
    esn="E",
    state="online",
    interfaces=(Interface(mac="02:00:00:00:00:01"),),
    attributes={"a": Raw(b"1"), "b": Raw(b'"x"'), "c": Raw(b'{"z": 1.50}'), "d": Raw(b"null")},
)
SESSIONS = [session_id(number) for number in range(1, 6)]
services = pytest.mark.services


@pytest.fixture
def stored(connection, postgres):
    """Rows of ``SESSIONS`` at revision 1, written by a worker that is gone."""
    with contextlib.closing(make_handler(postgres)) as handler:
        hand(handler, *(checkpoint(1, RECORD, session=session, seq=1) for session in SESSIONS))
    return connection


@pytest.fixture
def handler(postgres):
    with contextlib.closing(make_handler(postgres)) as handler:
        yield handler


@pytest.fixture
def others(monkeypatch):
    """Which other ways were taken, by how many sessions."""
    seen = []

    def watch(module, name):
        function = getattr(module, name)

        def watched(connection, what, **options):
            seen.append((name, len(what)))
            return function(connection, what, **options)

        monkeypatch.setattr(module, name, watched)

    for module, name in ((straight, "read_whole"), (straight, "read_known"), (straight, "write"), (sink, "write")):
        watch(module, name)
    return seen


def hand(handler, *messages, start=0):
    output = OutputTwin()
    handler.handle([record_of(message, start + i) for i, message in enumerate(messages)], output)
    assert output.refused == {}


def says(rev, session=SESSION, **patch):
    return change(rev, patch=RecordPatch(**patch), session=session, seq=rev, cause="probe")


def runs_of(*messages):
    records = [record_of(message, 10 + place) for place, message in enumerate(messages)]
    topics = {record.key: device_topic(record.key) for record in records}
    runs, rest = scan(records, topics, dict.fromkeys(topics), pytest.fail)
    assert rest == []
    return runs


def versions(connection):
    """Of each row what changes when it is written, or locked."""
    only_postgresql()
    return connection.execute("SELECT session, xmin::text, xmax::text FROM device_session ORDER BY session").fetchall()


@services
def test_nothing_is_read_before_a_change_is_written(stored, handler, others):
    values = {"a": Raw(b"1"), "b": Raw(b"[2]"), "c": Raw(b'{"z":1.5}'), "d": Raw(b"false"), "e": Raw(b"null")}
    hand(handler, says(2, attributes=values, state="asleep"), says(2, SESSIONS[1], attributes={"a": Raw(b"7")}))
    assert others == []
    found = rows_of(stored)
    first, second, third = (found[session] for session in SESSIONS[:3])
    assert (first.epoch, first.rev, first.seq, first.stale, first.record.state) == (EPOCH, 2, 2, False, "asleep")
    assert first.record.attributes == values | {"c": Raw(b'{"z": 1.50}')}, "what is the same is not written anew"
    assert (first.record.esn, first.record.interfaces) == (RECORD.esn, RECORD.interfaces)
    assert (second.rev, second.record.state) == (2, "online")
    assert second.record.attributes == RECORD.attributes | {"a": Raw(b"7")}
    assert (third.rev, third.record) == (1, RECORD)
    told = {"from": "online", "to": "asleep", "rev": 2, "cause": "probe"}
    assert [event for event in events_of(stored, RAE) if event[2]["from"]] == [(SESSION, "state", told)]


@services
def test_several_changes_of_one_row_are_one(stored, handler, others):
    hand(
        handler,
        says(2, state="offline"),
        says(2, state="offline"),
        says(3, attributes={"a": Raw(b"3")}),
        says(4, attributes={"b": Raw(b"4")}),
    )
    assert others == []
    row = rows_of(stored)[SESSION]
    assert (row.rev, row.seq, row.record.state) == (4, 4, "offline")
    assert row.record.attributes == RECORD.attributes | {"a": Raw(b"3"), "b": Raw(b"4")}
    assert [event[2]["rev"] for event in events_of(stored, RAE) if event[2]["from"]] == [2]


@services
def test_a_state_that_is_said_again_is_no_event(stored, handler, others):
    before = len(events_of(stored, RAE))
    hand(handler, says(2, state="online"))
    assert others == []
    assert (rows_of(stored)[SESSION].rev, len(events_of(stored, RAE))) == (2, before)


NOT_THERE = {
    "has it already": "UPDATE device_session SET rev = 2",
    "missed something": "UPDATE device_session SET rev = 0",
    "is stale": "UPDATE device_session SET stale = true",
    "is absent": "UPDATE device_session SET absent_at = now()",
    "has ended": "UPDATE device_session SET closed_at = now(), closed_reason = 'left'",
    "has a higher epoch": "UPDATE device_session SET epoch = epoch + 1",
    "has a lower epoch": "UPDATE device_session SET epoch = epoch - 1",
    "does not exist": "DELETE FROM device_session",
    "has many attributes": "INSERT INTO device_attribute SELECT rae, session, 'n' || n, '1'"
    " FROM device_session CROSS JOIN generate_series(1, 27) AS g (n)",
}


@services
@pytest.mark.parametrize("edit", NOT_THERE.values(), ids=NOT_THERE)
def test_a_row_on_which_it_does_not_go_on_is_neither_written_nor_locked(stored, edit):
    stored.execute(edit)
    before = versions(stored), rows_of(stored), events_of(stored, RAE)
    assert unread.write(stored, runs_of(says(2, state="asleep", attributes={"new": Raw(b"1")})), partition=0) == set()
    assert (versions(stored), rows_of(stored), events_of(stored, RAE)) == before


@services
def test_what_does_not_go_on_goes_the_other_ways_and_the_rest_does_not(stored, handler, others):
    stored.execute("UPDATE device_session SET rev = 2 WHERE session = %s", (SESSIONS[1],))
    stored.execute("UPDATE device_session SET rev = 0 WHERE session = %s", (SESSIONS[2],))
    hand(handler, *(says(2, session, state="asleep") for session in SESSIONS[:4]))
    assert ("read_whole", 2) in others
    assert [each for each in others if each[0] == "write"] == [("write", 1)]
    found = [rows_of(stored)[session] for session in SESSIONS]
    assert [row.rev for row in found] == [2, 2, 2, 2, 1]
    assert [row.stale for row in found] == [False, False, True, False, False]
    assert [row.record.state for row in found] == ["asleep", "online", "asleep", "asleep", "online"]


@services
def test_a_redelivery_takes_no_lock_and_writes_nothing(stored, postgres, others):
    messages = [says(2, session, state="asleep", attributes={"a": Raw(b"2")}) for session in SESSIONS]
    with contextlib.closing(make_handler(postgres)) as first:
        hand(first, *messages)
    before = versions(stored), events_of(stored, RAE)
    for size in (1, len(messages)):
        with contextlib.closing(make_handler(postgres)) as again:
            for at in range(0, len(messages), size):
                hand(again, *messages[at : at + size], start=at)
    assert (versions(stored), events_of(stored, RAE)) == before
    assert {name for name, _ in others} == {"read_whole"}


@services
def test_two_workers_write_the_same_change_once(stored, postgres):
    """The second one, which saw the row before the first one had written it, waits for its lock, and sees it then."""
    failures = []

    def work(start):
        try:
            with contextlib.closing(make_handler(postgres)) as handler:
                hand(handler, says(2, state="asleep", attributes={"a": Raw(b"2")}), start=start)
        except BaseException as error:
            failures.append(error)
            raise

    sql_faults.install(stored)
    sql_faults.race(stored, "device_attribute", [partial(work, start) for start in (70, 80)])
    assert failures == []
    assert stored.execute("SELECT kafka_offset, rev FROM device_session WHERE session = %s", (SESSION,)).fetchall() == [
        (70, 2)
    ]


@services
def test_what_the_database_refuses_costs_itself(stored, handler):
    stored.execute("ALTER TABLE device_attribute ADD CONSTRAINT no_poison CHECK (name <> 'poison')")
    output = OutputTwin()
    messages = [
        says(2, session, attributes={"poison" if session == SESSIONS[2] else "a": Raw(b"2")}) for session in SESSIONS
    ]
    handler.handle([record_of(message, place) for place, message in enumerate(messages)], output)
    assert list(output.refused) == [2]
    assert [rows_of(stored)[session].rev for session in SESSIONS] == [2, 2, 1, 2, 2]


@services
def test_remembered_rows_of_the_batch_go_along_and_are_forgotten(stored, handler, others):
    new = session_id(9)
    hand(handler, checkpoint(1, RECORD, session=new))
    others.clear()
    hand(handler, says(2, new, state="asleep"), says(2, state="asleep"), start=1)
    hand(handler, says(3, new, state="offline"), start=3)
    assert others == []
    assert (rows_of(stored)[new].rev, rows_of(stored)[SESSION].rev) == (3, 2)


@services
@pytest.mark.parametrize(("size", "is_ahead"), [(12_000, True), (14_000, False)])
def test_no_statement_is_larger_than_a_transaction_may_be(stored, postgres, others, size, is_ahead):
    said = [says(2, session, attributes={"a": Raw(b'"%s"' % (b"x" * size))}) for session in SESSIONS]
    with contextlib.closing(make_handler(postgres, transaction_bytes_max=64 * 1024)) as handler:
        hand(handler, *said)
    assert (others == []) is is_ahead
    assert all(row.rev == 2 for row in rows_of(stored).values())


@services
def test_what_stands_beside_a_checkpoint_of_its_row_waits_for_it(stored, handler, others, monkeypatch):
    scans = []
    monkeypatch.setattr(straight_way, "scan", lambda *asked: scans.append(len(asked[0])) or scan(*asked))
    record = msgspec.structs.replace(RECORD, name="n", attributes={"z": Raw(b"1")})
    hand(handler, says(2, state="asleep"), checkpoint(2, record), says(2, SESSIONS[1], state="asleep"))
    found = rows_of(stored)
    assert (found[SESSION].rev, found[SESSION].stale, found[SESSION].record) == (2, False, record)
    assert found[SESSIONS[1]].record.state == "asleep"
    assert scans == [1, 2]
    hand(handler, checkpoint(2, record), start=5)
    assert scans == [1, 2, 1], "of checkpoints alone nothing is tried ahead"


@services
def test_a_backlog_is_read_first(stored, postgres, others):
    with contextlib.closing(make_handler(postgres)) as handler:
        hand(handler, *(says(rev, session) for rev in range(2, 15) for session in SESSIONS))
    assert others[0] == ("read_whole", len(SESSIONS))
    assert all(row.rev == 14 for row in rows_of(stored).values())


@services
def test_nothing_goes_ahead_of_a_roster(stored, handler):
    roster = Roster(
        v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, first=session_id(0), last=session_id(99), sessions=(),
        seq_high=5,
    )  # fmt: skip
    hand(
        handler,
        roster,
        checkpoint(1, RECORD, session=session_id(7)),
        msgspec.structs.replace(says(2, state="asleep"), seq=None),
    )
    found = rows_of(stored)
    assert (found[SESSION].rev, found[SESSION].absent, found[SESSIONS[1]].absent) == (2, False, True)


class Recorder:
    """Stands for a connection; keeps what it was to write."""

    def execute(self, _statement, parameters):
        self.changes = json.loads(parameters[0])
        return self

    def fetchall(self):
        return []


def test_rows_are_locked_in_the_order_of_their_keys():
    recorder = Recorder()
    unread.write(recorder, runs_of(*(says(2, session) for session in reversed(SESSIONS))), partition=0)
    assert [each["session"] for each in recorder.changes] == SESSIONS


def test_what_the_statement_cannot_say_may_not_go():
    def may(*messages):
        (run,) = runs_of(*messages).values()
        return unread.may_go(run)

    assert may(says(2, state="online"), says(3), says(4, state="online"))
    assert not may(says(2, state="online"), says(3, state="asleep"))
    assert not may(checkpoint(1, RECORD))
    assert not may(checkpoint(1, RECORD), says(2))
