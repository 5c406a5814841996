"""The straight way: taken where it may be, and right when another writer was there first."""

import contextlib

import msgspec
import pytest
from msgspec import Raw

from dmpd.cloud_registry import sink, straight
from dmpd.cloud_registry.same_json import same_record
from dmpd.model.messages import Roster
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed, session_id
from tests.support.rows import OutputTwin, events_of, make_handler, record_of, rows_of
from tests.support.services import only_postgresql

pytestmark = pytest.mark.services
RECORD = DeviceRecord(
    esn="E",
    state="online",
    first_seen=AT,
    interfaces=(Interface(mac="02:00:00:00:00:01", ip4="10.0.0.7"),),
    attributes={"a": Raw(b"1"), "b": Raw(b'"x"'), "c": Raw(b'{"z": 1.50, "y": [true]}'), "d": Raw(b"1.50")},
)


@pytest.fixture
def handler(connection, postgres):
    with contextlib.closing(make_handler(postgres)) as handler:
        yield handler


@pytest.fixture
def judged(monkeypatch):
    """How many units went the other way."""
    seen = []
    write = sink.write

    def counting(connection, units, **others):
        seen.extend(unit.session for unit in units)
        return write(connection, units, **others)

    monkeypatch.setattr(sink, "write", counting)
    return seen


def hand(handler, *messages, start=0):
    output = OutputTwin()
    handler.handle([record_of(message, start + i) for i, message in enumerate(messages)], output)
    assert output.refused == {}


def test_the_usual_takes_it(connection, handler, judged):
    hand(handler, checkpoint(1, RECORD, seq=1))
    values = {"a": Raw(b"true"), "b": Raw(b"null"), "c": Raw(b'{"y":[true], "z":1.5}'), "e": Raw(b"[1.0]")}
    hand(handler, change(2, patch=RecordPatch(attributes=values), seq=2), start=1)
    hand(
        handler,
        change(3, patch=RecordPatch(state="asleep"), seq=3),
        checkpoint(3, rows_of(connection)[SESSION].record),
        start=2,
    )
    hand(handler, change(3, patch=RecordPatch(state="asleep"), seq=3), change(4, seq=4), start=3)
    assert judged == []
    row = rows_of(connection)[SESSION]
    assert (row.rev, row.seq, row.stale, row.record.state) == (4, 4, False, "online")
    assert row.record.interfaces == RECORD.interfaces
    assert row.record.attributes == {
        "a": Raw(b"true"),
        "b": Raw(b"null"),
        "c": Raw(b'{"y": [true], "z": 1.50}'),
        "d": Raw(b"1.50"),
        "e": Raw(b"[1.0]"),
    }


def test_a_worker_that_knows_nothing_reads_first(connection, handler, postgres, judged):
    hand(handler, checkpoint(1, RECORD, seq=1))
    with contextlib.closing(make_handler(postgres)) as successor:
        hand(successor, checkpoint(1, RECORD, seq=1), change(2, patch=RecordPatch(attributes={"a": Raw(b"2")}), seq=2))
        hand(successor, change(3, patch=RecordPatch(attributes={"d": Raw(b"1.5")}), seq=3), start=2)
    assert judged == []
    row = rows_of(connection)[SESSION]
    assert (row.rev, row.stale) == (3, False)
    assert row.record.attributes == RECORD.attributes | {"a": Raw(b"2"), "c": Raw(b'{"y": [true], "z": 1.50}')}


@pytest.mark.parametrize(
    "message",
    [
        change(2, patch=RecordPatch(name="n")),
        change(2, patch=RecordPatch(interfaces=(Interface(mac="02:00:00:00:00:02"),))),
        change(2, unset=("a",)),
        change(3, patch=RecordPatch(state="asleep")),
        change(2, epoch=EPOCH + 1, patch=RecordPatch(state="asleep")),
        checkpoint(2, DeviceRecord(state="online", attributes=RECORD.attributes)),
        closed(2),
    ],
    ids=["core field", "interfaces", "unset", "gap", "other epoch", "checkpoint with less", "closed"],
)
def test_what_is_more_than_it_can_say_goes_the_other_way(connection, handler, judged, message):
    hand(handler, checkpoint(1, RECORD, seq=1))
    hand(handler, message, start=1)
    assert judged == [SESSION]
    row = rows_of(connection)[SESSION]
    assert row.rev == message.rev


def test_a_roster_takes_all_of_its_rae_the_other_way(connection, handler, judged):
    hand(handler, checkpoint(1, RECORD, seq=1), checkpoint(1, RECORD, seq=2, session=session_id(2)))
    roster = Roster(
        v=1,
        rae=RAE,
        session="rae",
        at=AT,
        epoch=EPOCH,
        first=session_id(0),
        last=session_id(9),
        sessions=(),
        seq_high=5,
    )
    hand(handler, roster, change(2, seq=6), start=2)
    found = rows_of(connection)
    assert (found[SESSION].absent, found[session_id(2)].absent) == (False, True)
    assert set(judged) == {SESSION, session_id(2)}


@pytest.mark.parametrize("is_new", [True, False])
def test_what_the_database_refuses_sends_only_its_own_session_the_other_way(connection, handler, judged, is_new):
    connection.execute("ALTER TABLE device_attribute ADD CONSTRAINT no_poison CHECK (name <> 'poison')")
    sessions = [session_id(number) for number in range(100)]
    bad = sessions[37]
    if not is_new:
        hand(handler, *(checkpoint(1, RECORD, session=session, seq=1) for session in sessions))
    said = []
    for session in sessions:
        attributes = {"a": Raw(b"2")} | ({"poison": Raw(b"1")} if session == bad else {})
        if is_new:
            said.append(checkpoint(1, DeviceRecord(attributes=attributes), session=session, seq=1))
        else:
            said.append(change(2, patch=RecordPatch(attributes=attributes), session=session, seq=2))
        said.append(change(said[-1].rev + 1, patch=RecordPatch(state="asleep"), session=session, seq=3))
    output = OutputTwin()
    handler.handle([record_of(message, 100 + i) for i, message in enumerate(said)], output)
    assert set(judged) == {bad}
    assert list(output.refused) == [100 + 2 * 37]
    found = rows_of(connection)
    assert {session for session, row in found.items() if row.record.attributes.get("a") == Raw(b"2")} == {*sessions} - {
        bad
    }
    assert all(row.record.state == "asleep" for row in found.values())
    assert [session for session, row in found.items() if row.stale] == [bad], "a revision is missing"


def test_rows_that_another_writer_moved_are_judged_and_the_others_are_not(connection, handler, postgres, judged):
    sessions = [session_id(number) for number in range(5)]
    hand(handler, *(checkpoint(1, RECORD, session=session, seq=1) for session in sessions))
    with contextlib.closing(make_handler(postgres)) as zombie:
        hand(zombie, change(2, patch=RecordPatch(attributes={"a": Raw(b"2")}), session=sessions[2], seq=2), start=7)
    hand(
        handler,
        *(change(2, patch=RecordPatch(state="asleep"), session=session, seq=2) for session in sessions),
        *(change(3, patch=RecordPatch(attributes={"b": Raw(b"3")}), session=session, seq=3) for session in sessions),
        start=5,
    )
    assert sessions[2] in judged
    for row in rows_of(connection).values():
        assert (row.rev, row.stale, row.record.attributes["b"]) == (3, False, Raw(b"3"))
        assert row.record.state == "asleep"
    assert len(events_of(connection, RAE)) == 5 + 4


@pytest.mark.parametrize(
    "then", [(), (change(2, patch=RecordPatch(state="asleep"), seq=2),)], ids=["alone", "and more"]
)
@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE device_session SET state = 'offline'",
        "UPDATE device_session SET esn = NULL, name = 'wrong'",
        "UPDATE device_attribute SET value = '7' WHERE name = 'a'",
        "DELETE FROM device_attribute WHERE name = 'b'",
        "INSERT INTO device_attribute SELECT rae, session, 'z', '1' FROM device_session",
        "UPDATE device_interface SET ip4 = '10.0.0.8'",
        "DELETE FROM device_session",
    ],
)
def test_a_checkpoint_heals_what_was_edited_behind_the_workers_back(connection, handler, edit, then):
    hand(handler, checkpoint(1, RECORD, seq=1))
    connection.execute(edit)
    hand(handler, checkpoint(1, RECORD), *then, start=1)
    row = rows_of(connection)[SESSION]
    assert (row.rev, row.stale) == (1 + len(then), False)
    assert same_record(row.record, msgspec.structs.replace(RECORD, state="asleep" if then else "online"))


def test_a_row_that_appears_meanwhile_is_judged(connection, handler, postgres, monkeypatch):
    """Between the read and the statement; and the rest of the batch is not lost with it."""
    read_known = straight.read_known

    def slow(used, topics):
        found = read_known(used, topics)
        monkeypatch.setattr(straight, "read_known", read_known)
        with contextlib.closing(make_handler(postgres)) as other:
            hand(other, checkpoint(1, RECORD, seq=1))
        return found

    monkeypatch.setattr(straight, "read_known", slow)
    hand(handler, checkpoint(1, RECORD, seq=1), change(2, seq=2), checkpoint(1, RECORD, session=session_id(2)))
    assert {session: row.rev for session, row in rows_of(connection).items()} == {SESSION: 2, session_id(2): 1}


def test_the_connection_lost_in_mid_statement_costs_time_only(connection, handler, monkeypatch):
    only_postgresql()
    hand(handler, checkpoint(1, RECORD, seq=1))
    write = straight.write
    kills = []

    def killing(used, planned, **others):
        if len(kills) < 2:
            kills.append(used.info.backend_pid)
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (used.info.backend_pid,))
        write(used, planned, **others)

    monkeypatch.setattr(straight, "write", killing)
    hand(handler, change(2, patch=RecordPatch(attributes={"a": Raw(b"2")})), start=1)
    assert len(kills) == 2
    assert rows_of(connection)[SESSION].record.attributes["a"] == Raw(b"2")


def test_rows_are_found_by_their_keys_also_when_the_tables_were_empty_at_first(connection, handler, judged):
    """A plan is kept for good, and of empty tables to read them whole looks cheapest."""
    only_postgresql()
    for n in range(1, 21):
        hand(handler, checkpoint(1, RECORD, session=session_id(n)), start=10 * n)
        hand(
            handler,
            change(2, patch=RecordPatch(attributes={"a": Raw(b"%d" % n)}), session=session_id(n)),
            start=10 * n + 1,
        )
    with contextlib.closing(make_handler(handler._settings.database)) as another:
        for n in range(1, 21):
            hand(another, change(3, patch=RecordPatch(state="offline"), session=session_id(n)), start=10 * n + 2)
    handler.close()  # what it counted is told at its end
    (scanned,) = connection.execute(
        "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('device_session', 'device_attribute')"
    ).fetchone()
    assert (scanned, judged) == (0, [])


GONE = Roster(
    v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, first=session_id(0), last=session_id(9), sessions=(), seq_high=5
)


@pytest.mark.parametrize(
    "then",
    [closed(1), GONE, checkpoint(1, DeviceRecord(attributes={"a": Raw(b"7")}))],
    ids=["closed", "absent", "other content"],
)
def test_what_another_writer_did_at_the_very_revision_that_is_known_is_seen(connection, handler, postgres, then):
    hand(handler, checkpoint(1, RECORD, seq=1))
    with contextlib.closing(make_handler(postgres)) as other:
        hand(other, then, start=1)
    hand(handler, change(2, patch=RecordPatch(state="asleep", attributes={"a": Raw(b"1")}), seq=6), start=2)
    row = rows_of(connection)[SESSION]
    if then is GONE:
        assert (row.rev, row.absent, row.stale) == (2, False, False)
        assert connection.execute("SELECT kafka_offset FROM device_session").fetchone() == (2,)
    elif row.closed is None:
        assert row.record.attributes == {"a": Raw(b"1")}
    else:
        assert (row.closed, row.rev, row.record) == ("left", 1, DeviceRecord())
        assert connection.execute("SELECT count(*) FROM device_attribute").fetchone() == (0,)


def test_nothing_is_known_of_a_database_that_was_left_and_found_again(connection, handler):
    """It may be an older one, restored: what was passed over as old news is news to it."""
    only_postgresql()
    other = session_id(2)
    said = change(2, patch=RecordPatch(attributes={"a": Raw(b"2")}))
    hand(handler, checkpoint(1, RECORD), checkpoint(1, RECORD, session=other))
    hand(handler, said, start=2)
    connection.execute("UPDATE device_session SET rev = 1, kafka_offset = 0 WHERE session = %s::text::uuid", (SESSION,))
    connection.execute("UPDATE device_attribute SET value = '1' WHERE name = 'a'")
    connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'dmpd-cloud-registry-%'"
    )
    hand(handler, said, msgspec.structs.replace(said, session=other), start=2)
    for session in (SESSION, other):
        row = rows_of(connection)[session]
        assert (row.rev, row.record.attributes["a"]) == (2, Raw(b"2")), session
