"""What is old goes, in small batches that wait for nobody and that nobody waits for; what is not old stays."""

import contextlib
import threading
import uuid
from collections import Counter

import msgspec
import pytest
from msgspec import Raw

from dmpd.cli.config import CloudConfig
from dmpd.cloud_registry import durability, retention
from dmpd.cloud_registry.retention import Removed, remove_old
from dmpd.cloud_registry.settings import CloudRegistrySettings, RetentionSettings
from dmpd.model.messages import Status
from dmpd.model.record import DeviceRecord, Interface
from dmpd.runtime.database import connect
from dmpd.runtime.settings import DatabaseSettings, TopicSettings
from dmpd.stream.settings import StreamSettings
from tests.support import sql_faults
from tests.support.messages import AT, EPOCH, checkpoint, closed, session_id
from tests.support.rows import OutputTwin, make_handler, record_of, rows_of
from tests.support.services import only_postgresql

pytestmark = pytest.mark.services

SETTINGS = RetentionSettings(event_hours=100, tombstone_hours=100, canary_hours=2, access_hours=100, batch_rows=10)
RECORD = DeviceRecord(state="online", interfaces=(Interface(mac="02:00:00:00:00:01"),), attributes={"a": Raw(b"1")})
AGE = {
    "device_session": "UPDATE device_session SET closed_at = closed_at - %(h)s * INTERVAL '1 hour',"
    " applied_at = applied_at - %(h)s * INTERVAL '1 hour' WHERE rae = %(rae)s",
    "device_event": "UPDATE device_event SET recorded_at = recorded_at - %(h)s * INTERVAL '1 hour' WHERE rae = %(rae)s",
    "rae": "UPDATE rae SET applied_at = applied_at - %(h)s * INTERVAL '1 hour' WHERE rae = %(rae)s",
}


def fill(settings, rae, numbers, *, ends):
    """Device sessions of ``rae`` with children and events, the RAE's own row; ``ends``: they are closed then."""
    said = [checkpoint(1, RECORD, session=session_id(number), seq=number + 1) for number in numbers]
    said += [closed(2, session=session_id(number), seq=1000 + number) for number in numbers] if ends else []
    said.append(Status(v=1, rae=rae, session="rae", at=AT, epoch=EPOCH, state="ready", run=1, seq_high=0))
    records = [record_of(msgspec.structs.replace(message, rae=rae), offset) for offset, message in enumerate(said)]
    with contextlib.closing(make_handler(settings)) as handler:
        handler.handle(records, OutputTwin())


def age(connection, rae, hours):
    for statement in AGE.values():
        connection.execute(statement, {"h": hours, "rae": rae})


def counts(connection, rae):
    tables = ("device_session", "device_interface", "device_attribute", "device_event", "rae")
    return {
        name: connection.execute(f"SELECT count(*) FROM {name} WHERE rae = %s", (rae,)).fetchone()[0] for name in tables
    }


def never(_seconds):
    return False


def test_what_is_old_goes_and_what_is_not_stays(connection, postgres):
    fill(postgres, "R-old", range(25), ends=True)
    fill(postgres, "R-new", range(25), ends=True)
    fill(postgres, "R-open", range(25), ends=False)
    age(connection, "R-old", 101)
    age(connection, "R-new", 99)
    age(connection, "R-open", 101)
    removed = remove_old(connection, SETTINGS, rest=never)
    assert removed == Removed(events=50 + 25, tombstones=25)
    assert counts(connection, "R-old") | {"rae": 0} == dict.fromkeys(counts(connection, "R-old"), 0)
    assert counts(connection, "R-new")["device_session"] == 25
    assert counts(connection, "R-new")["device_event"] == 50
    opened = counts(connection, "R-open")
    assert (opened["device_session"], opened["device_attribute"], opened["device_event"]) == (25, 25, 0)
    assert remove_old(connection, SETTINGS, rest=never) == Removed()


def test_all_of_a_canary_goes_after_its_time_and_nothing_of_others(connection, postgres):
    fill(postgres, "canary-0001", range(25), ends=False)
    fill(postgres, "canary-0002", range(3), ends=True)
    fill(postgres, "canary", range(3), ends=False)  # the name of no canary
    fill(postgres, "R-1", range(3), ends=False)
    for rae in ("canary-0001", "canary", "R-1"):
        age(connection, rae, 3)
    assert remove_old(connection, SETTINGS, rest=never).canaries == 25 + 25 + 1
    assert set(counts(connection, "canary-0001").values()) == {0}
    assert counts(connection, "canary-0002")["device_session"] == 3
    assert counts(connection, "canary")["device_attribute"] == 3
    assert counts(connection, "R-1") == dict.fromkeys(counts(connection, "R-1"), 3) | {"rae": 1}


def test_a_canary_whose_devices_were_heard_of_after_itself_goes_with_them(connection, postgres):
    fill(postgres, "canary-0001", range(3), ends=False)
    connection.execute(AGE["rae"], {"h": 3, "rae": "canary-0001"})
    assert remove_old(connection, SETTINGS, rest=never).canaries == 0
    age(connection, "canary-0001", 3)
    remove_old(connection, SETTINGS, rest=never)
    assert set(counts(connection, "canary-0001").values()) == {0}


def test_a_canary_that_never_said_a_status_goes_too(connection, postgres):
    """It ended before, or the status was refused: only its device sessions, or only its events, are known."""
    for rae in ("canary-0001", "canary-0002", "R-1"):
        fill(postgres, rae, range(3), ends=False)
    fill(postgres, "canary-0003", range(3), ends=False)
    connection.execute("DELETE FROM rae")
    connection.execute("DELETE FROM device_session WHERE rae = 'canary-0002'")
    for rae in ("canary-0001", "canary-0002", "R-1"):
        age(connection, rae, 3)
    removed = remove_old(connection, SETTINGS, rest=never)
    assert removed == Removed(canaries=9)
    assert set(counts(connection, "canary-0001").values()) == {0}
    assert counts(connection, "canary-0002")["device_event"] == 0
    assert counts(connection, "canary-0003")["device_session"] == 3, "not old yet"
    assert counts(connection, "R-1")["device_session"] == 3


def put_grant(connection, name, *, began, ends, revoked=None, lines=()):
    """Hours ago; ``lines``: when the audit said something of it."""
    connection.execute(
        "INSERT INTO access_grant (id, user_name, rae, level, starts_at, ends_at, created_at, granted_by, why, queued,"
        " ended_at) SELECT %(id)s, 'u-a', 'R1', 'read', now() - %(from)s * hour, now() - %(to)s * hour,"
        " now(), 'op', 'x', false, now() - %(ended)s * hour FROM (SELECT INTERVAL '1 hour') AS h(hour)",
        {"id": name, "from": began, "to": ends, "ended": revoked},
    )
    for hours in lines:
        put_line(connection, hours, name)


def put_line(connection, hours, grant=None):
    connection.execute(
        "INSERT INTO access_event VALUES (now() - %s * INTERVAL '1 hour', %s, 'x', %s, 'u-a', 'op', '{}')",
        (hours, uuid.uuid4().hex, grant),
    )


def kept(connection):
    """The grants, and of whom there are lines of the audit."""
    grants = {name for (name,) in connection.execute("SELECT id FROM access_grant")}
    return grants, Counter(name for (name,) in connection.execute("SELECT grant_id FROM access_event"))


def test_a_grant_goes_so_long_after_its_end_and_its_audit_not_before_it(connection):
    put_grant(connection, "long", began=5000, ends=-1, lines=(5000, 4000, 90))
    put_grant(connection, "over", began=300, ends=99, lines=(300, 150, 99))
    put_grant(connection, "gone", began=300, ends=101, lines=(300, 101))
    put_grant(connection, "late", began=300, ends=101, lines=(300, 99))  # its end was written later
    put_grant(connection, "revoked", began=300, ends=101, revoked=200, lines=(300, 200))
    put_grant(connection, "revoked-long", began=300, ends=-100, revoked=200, lines=(300,))
    for hours in (101, 99):
        put_line(connection, hours)
    assert remove_old(connection, SETTINGS, rest=never) == Removed(grants=3, audit=2 + 1 + 2 + 1)
    grants, lines = kept(connection)
    assert grants == {"long", "over", "revoked-long"}
    assert lines == {"long": 3, "over": 3, "late": 1, "revoked-long": 1, None: 1}
    assert remove_old(connection, SETTINGS, rest=never) == Removed()


def test_the_audit_goes_in_small_batches_too(connection):
    for number in range(25):
        put_grant(connection, f"g{number}", began=300, ends=101, lines=(300, 101))
    rests = []

    def rest(seconds):
        rests.append(seconds)
        return len(rests) == 4

    assert remove_old(connection, SETTINGS, rest=rest) == Removed(grants=25, audit=20)
    assert remove_old(connection, SETTINGS, rest=never) == Removed(audit=30)


def test_batches_are_small_and_it_rests_between_them(connection, postgres):
    fill(postgres, "R-old", range(35), ends=True)
    age(connection, "R-old", 101)
    rests = []

    def rest(seconds):
        rests.append(seconds)
        return len(rests) == 2

    removed = remove_old(connection, SETTINGS, rest=rest)
    assert removed.events == 20, "two batches, then it was told to stop"
    assert all(seconds > 0 for seconds in rests)


@pytest.fixture
def deleted(connection):
    """``(table, rows, transaction)`` of every statement that deletes something from here on."""
    only_postgresql()
    connection.execute("CREATE TABLE deleted (name text, rows bigint, tx bigint)")
    connection.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO deleted"
        " SELECT TG_TABLE_NAME, count(*), txid_current() FROM gone HAVING count(*) > 0; RETURN NULL; END $$"
    )
    for table in ("device_session", "device_event", "rae"):
        connection.execute(
            f"CREATE TRIGGER note AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone"
            " FOR EACH STATEMENT EXECUTE FUNCTION note()"
        )
    return lambda: connection.execute("SELECT name, rows, tx FROM deleted").fetchall()


def test_no_transaction_removes_more_than_a_batch_nor_a_rae_with_its_sessions(connection, postgres, deleted):
    fill(postgres, "R-old", range(35), ends=True)
    fill(postgres, "canary-0001", range(35), ends=False)
    fill(postgres, "canary-0002", range(35), ends=True)
    for rae in ("R-old", "canary-0001", "canary-0002"):
        age(connection, rae, 101)
    remove_old(connection, SETTINGS, rest=never)
    total, tables = Counter(), {}
    for name, rows, tx in deleted():
        assert rows <= SETTINGS.batch_rows, name
        total[name] += rows
        tables.setdefault(tx, []).append(name)
    assert total == {"device_session": 105, "device_event": 70 + 35 + 70, "rae": 2}
    assert all(len(names) == 1 for names in tables.values()), "the sink locks in another order"


def test_events_of_canaries_go_in_batches_too(connection, deleted):
    connection.execute(
        "INSERT INTO device_event SELECT 'canary-' || lpad((n % 50)::text, 4, '0'), 'rae', now(), n, 'x', 1, '{}',"
        " now() - INTERVAL '3 hours' FROM generate_series(1, 200) AS n"
    )
    assert remove_old(connection, SETTINGS, rest=never) == Removed(canaries=200)
    assert [rows for _, rows, _ in deleted()] == [10] * 20


def test_it_waits_for_no_lock_of_a_canary(connection, postgres):
    fill(postgres, "canary-0001", range(9), ends=False)
    fill(postgres, "canary-0002", range(9), ends=False)
    for rae in ("canary-0001", "canary-0002"):
        age(connection, rae, 3)
    connection.execute("SET lock_timeout = '10s'")
    locked = ("canary-0001", session_id(3))
    with contextlib.closing(connect(postgres, application="other")) as other:
        other.execute("SELECT 1 FROM device_session WHERE rae = %s AND session = %s::text::uuid FOR UPDATE", locked)
        other.execute("SELECT 1 FROM device_event WHERE rae = %s AND session = %s FOR UPDATE", locked)
        other.execute("SELECT 1 FROM rae WHERE rae = 'canary-0002' FOR UPDATE")
        assert remove_old(connection, SETTINGS, rest=never).canaries == 17 + 17
        other.rollback()
    assert remove_old(connection, SETTINGS, rest=never).canaries == 2 + 2


def test_it_waits_for_no_lock(connection, postgres):
    fill(postgres, "R-old", range(9), ends=True)
    age(connection, "R-old", 101)
    with contextlib.closing(connect(postgres, application="other")) as other:
        other.execute("SELECT 1 FROM device_session WHERE session = %s::text::uuid FOR UPDATE", (session_id(3),))
        other.execute("SELECT 1 FROM device_event WHERE session = %s FOR UPDATE", (session_id(4),))
        removed = remove_old(connection, SETTINGS, rest=never)
        other.rollback()
    assert removed == Removed(events=16, tombstones=8)
    assert remove_old(connection, SETTINGS, rest=never) == Removed(events=2, tombstones=1)


def test_the_sink_writes_while_a_batch_is_held_in_the_middle(connection, postgres):
    fill(postgres, "R-old", range(9), ends=True)
    age(connection, "R-old", 101)
    sql_faults.install(connection)
    removed = []

    def remove():
        with contextlib.closing(connect(postgres, application="dmpd-cloud-registry-retention")) as own:
            own.autocommit = True
            removed.append(remove_old(own, SETTINGS, rest=never))

    with sql_faults.gate(connection, "device_session", "DELETE"):
        thread = threading.Thread(target=remove)
        thread.start()
        sql_faults.wait_for_waiters(connection)
        fill(postgres, "R-new", range(9), ends=True)
        assert len(rows_of(connection, "R-new")) == 9
    thread.join(30)
    assert not thread.is_alive()
    assert removed == [Removed(events=18, tombstones=9)]


def test_two_instances_at_once_remove_each_row_once(connection, postgres):
    fill(postgres, "R-old", range(60), ends=True)
    age(connection, "R-old", 101)
    removed, start = [], threading.Barrier(2)

    def remove():
        with contextlib.closing(connect(postgres, application="retention")) as own:
            own.autocommit = True
            start.wait(20)
            removed.append(remove_old(own, SETTINGS, rest=never))

    threads = [threading.Thread(target=remove) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(removed) == 2
    rest = remove_old(connection, SETTINGS, rest=never)  # what both found locked by the other
    total = [sum(each) for each in zip(*removed, rest, strict=True)]
    assert total == [120, 60, 0, 0, 0]


def test_it_finds_what_is_old_by_indexes(connection):
    only_postgresql()
    connection.execute("SET enable_seqscan = off")
    connection.execute("SET enable_bitmapscan = off")
    for statement, index, column in (
        (retention._OLD_EVENTS, "device_event_recorded", "recorded_at"),
        (retention._OLD_TOMBSTONES, "device_session_closed", "closed_at"),
        (retention._OLD_GRANTS, "access_grant_ends", "ends_at"),
        (retention._OLD_AUDIT, "access_event_pkey", "at"),
    ):
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}", (100, 500)))
        assert f"Index Scan using {index}" in plan
        assert f"Index Cond: ({column} < (now()" in plan, "searched by it, not only walked through in its order"
        assert "Sort" not in plan


def test_a_pass_that_fails_is_counted_and_the_next_one_works(connection, postgres, monkeypatch):
    fill(postgres, "R-old", range(3), ends=True)
    age(connection, "R-old", 101)
    failures = retention.metrics.RETENTION_FAILURES._value.get
    before, tries = failures(), []

    def flaky():
        tries.append(1)
        if len(tries) == 1:
            raise retention.UnavailableError("away")
        return connect(postgres, application="retention")

    one = retention.Retention(msgspec.structs.replace(SETTINGS, interval_s=0.01), connect=flaky)
    one.start()
    try:
        done = threading.Event()
        while rows_of(connection, "R-old"):
            assert not done.wait(0.02)
    finally:
        one.stop()
    assert failures() == before + 1


def test_a_tombstone_outlives_what_could_bring_its_session_back():
    short = CloudRegistrySettings(retention=RetentionSettings(tombstone_hours=335))
    with pytest.raises(ValueError, match=r"retention_hours \+ 168 \(336\), got 335"):
        CloudConfig(cloud_registry=short)
    assert CloudConfig(cloud_registry=short, topics=TopicSettings(retention_hours=167))


def test_timers_that_would_kill_a_waiting_worker_are_refused():
    slow = DatabaseSettings(statement_timeout_s=40.0)
    with pytest.raises(ValueError, match=r"stuck_timeout_s: expected at least .* \(61\), got 60"):
        CloudConfig(database=slow)
    stream = StreamSettings(stuck_timeout_s=61.0)
    with pytest.raises(ValueError, match=r"sink_silence_timeout_s: expected at least .* \(120\), got 90"):
        CloudConfig(database=slow, cloud_registry=CloudRegistrySettings(stream=stream))


def test_start_warns_of_a_database_that_may_forget(connection):
    only_postgresql()
    said = durability.warn(connection)
    assert [sentence.split(": ")[0] for sentence in said] == [
        "the database runs with fsync = off",
        "the database runs with synchronous_commit = off",
        "the database runs with full_page_writes = off",
    ], "as the tests' cluster is"
    connection.execute("SET synchronous_commit = on")
    assert len(durability.warn(connection)) == 2
