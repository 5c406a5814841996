"""Two writers of one session, one of them held in mid-transaction: the other one waits and is exact."""

import contextlib
import threading
from functools import partial

import msgspec
import pytest
from msgspec import Raw

from dmpd.cloud_registry import sink, statements
from dmpd.model.messages import Roster, Status
from dmpd.model.record import DeviceRecord, RecordPatch
from dmpd.runtime.database import connect
from tests.support import sql_faults
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, session_id
from tests.support.rows import OutputTwin, make_handler, record_of, rows_of

pytestmark = pytest.mark.services


def race(connection, postgres, first, second):
    """Let ``second`` be handled while the transaction of ``first`` is held open behind its writes."""
    outputs = [OutputTwin(), OutputTwin()]

    def work(message, offset, output):
        with contextlib.closing(make_handler(postgres)) as handler:
            handler.handle([record_of(message, offset)], output)

    sql_faults.install(connection)
    works = [partial(work, message, offset, outputs[offset]) for offset, message in enumerate((first, second))]
    sql_faults.race(connection, "device_attribute", works)
    assert [output.refused for output in outputs] == [{}, {}]
    return rows_of(connection)[SESSION]


def test_the_second_writer_judges_what_the_first_one_left(connection, postgres):
    with contextlib.closing(make_handler(postgres)) as handler:
        handler.handle([record_of(checkpoint(1, DeviceRecord(attributes={"a": Raw(b"1")})), 0)], OutputTwin())
    row = race(
        connection,
        postgres,
        change(2, patch=RecordPatch(attributes={"a": Raw(b"2"), "b": Raw(b"2")})),
        change(3, unset=("b",)),
    )
    assert (row.rev, row.stale, row.record.attributes) == (3, False, {"a": Raw(b"2")})


def test_the_second_writer_of_a_new_session_begins_again(connection, postgres):
    row = race(
        connection,
        postgres,
        checkpoint(1, DeviceRecord(attributes={"a": Raw(b"1")})),
        change(2, patch=RecordPatch(attributes={"b": Raw(b"2")})),
    )
    assert (row.rev, row.stale, row.record.attributes) == (2, False, {"a": Raw(b"1"), "b": Raw(b"2")})


def test_the_second_writer_of_a_rae_judges_what_the_first_one_left(connection, postgres):
    def work(run, offset):
        said = Status(v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, state="ready", run=run, seq_high=0)
        with contextlib.closing(make_handler(postgres)) as own:
            own.handle([record_of(said, offset)], OutputTwin())

    work(1, 0)
    sql_faults.install(connection)
    sql_faults.race(connection, "rae", [partial(work, run, offset) for offset, run in enumerate((3, 2), 1)])
    assert connection.execute("SELECT run FROM rae").fetchone() == (3,)


def test_rows_are_locked_in_key_order_however_they_come(connection, postgres):
    """Two writers that lock the same rows in two orders end as a deadlock."""
    sessions = [session_id(number) for number in (1, 2, 3)]
    with contextlib.closing(make_handler(postgres)) as handler:
        records = [record_of(checkpoint(1, session=one), offset) for offset, one in enumerate(sessions)]
        handler.handle(records, OutputTwin())

    def lock_all():
        with contextlib.closing(connect(postgres, application="dmpd-cloud-registry-test")) as own:
            sink.look_up_by_keys(own)
            own.execute(statements.LOCK, ([RAE] * 3, list(reversed(sessions))))
            own.rollback()

    with contextlib.closing(connect(postgres, application="test")) as first:
        first.execute("SELECT 1 FROM device_session WHERE session = %s::text::uuid FOR UPDATE", (sessions[0],))
        thread = threading.Thread(target=lock_all)
        thread.start()
        sql_faults.wait_for_waiters(connection)
        free = connection.execute("SELECT session::text FROM device_session ORDER BY session FOR UPDATE SKIP LOCKED")
        assert [session for (session,) in free] == sessions[1:], "who waits for the first one holds none behind it"
        first.rollback()
    thread.join(30)
    assert not thread.is_alive()


def roster(*sessions, seq_high):
    return Roster(
        v=1,
        rae=RAE,
        session="rae",
        at=AT,
        epoch=EPOCH,
        first=session_id(0),
        last=session_id(99),
        sessions=sessions,
        seq_high=seq_high,
    )


def test_a_roster_stands_between_the_messages_of_its_batch(connection, postgres):
    other = session_id(2)
    messages = [
        checkpoint(1, seq=1),
        checkpoint(1, seq=2, session=other),
        roster(seq_high=5),
        msgspec.structs.replace(change(2, seq=6), session=other),
        msgspec.structs.replace(checkpoint(1, seq=1), rae="RAE-8"),
    ]
    with contextlib.closing(make_handler(postgres)) as handler:
        handler.handle([record_of(message, offset) for offset, message in enumerate(messages)], OutputTwin())
    rows = rows_of(connection, RAE)
    assert (rows[SESSION].absent, rows[other].absent) == (True, False)
    assert not rows_of(connection, "RAE-8")[SESSION].absent
