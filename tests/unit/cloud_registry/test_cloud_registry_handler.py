"""The handler: what a batch becomes, what one bad message costs, and what an absent database costs (time, no more)."""

import contextlib
import json
import threading
from datetime import timedelta

import msgspec
import pytest
from msgspec import Raw

from dmpd.cloud_registry.same_json import same_record
from dmpd.model.codec import encode
from dmpd.model.messages import Event, Status
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from dmpd.model.topics import info_topic
from dmpd.stream.handler import Record
from tests.support.messages import AT, EPOCH, RAE, SESSION, change, checkpoint, closed, session_id
from tests.support.rows import (
    TIMESTAMP_MS,
    OutputTwin,
    always_by_full_rules,
    events_of,
    make_handler,
    record_of,
    rows_of,
)
from tests.support.services import only_postgresql

pytestmark = pytest.mark.services


@pytest.fixture
def handler(connection, postgres):
    handler = make_handler(postgres)
    yield handler
    handler.close()


def hand(handler, *messages, start=0, headers=()):
    output = OutputTwin()
    handler.handle([record_of(message, start + i, headers) for i, message in enumerate(messages)], output)
    return output


def status(*, state="ready", run=1, epoch=EPOCH):
    return Status(v=1, rae=RAE, session="rae", at=AT, epoch=epoch, state=state, run=run, seq_high=3, outbox_rows=2)


def test_a_checkpoint_becomes_rows(connection, handler):
    record = DeviceRecord(
        esn="E1",
        state="online",
        first_seen=AT,
        interfaces=(Interface(mac="02:00:00:00:00:01", ip4="10.0.0.7", ip6=("fe80::1",)),),
        attributes={"test_state": Raw(b'"in_test"'), "nothing": Raw(b"null")},
    )
    hand(handler, checkpoint(4, record, seq=9))
    (row,) = rows_of(connection).values()
    assert row.record == record
    assert (row.epoch, row.rev, row.seq, row.stale, row.changed_at) == (EPOCH, 4, 9, False, AT)
    stored = connection.execute("SELECT name, value IS NULL FROM device_attribute ORDER BY name").fetchall()
    assert stored == [("nothing", False), ("test_state", False)]


def test_closed_leaves_a_slim_tombstone(connection, handler):
    record = DeviceRecord(interfaces=(Interface(mac="02:00:00:00:00:01"),), attributes={"a": Raw(b"1")})
    hand(handler, checkpoint(4, record))
    hand(handler, closed(5, reason="left"), start=1)
    (row,) = rows_of(connection).values()
    assert (row.closed, row.rev, row.record) == ("left", 5, DeviceRecord())
    for table in ("device_interface", "device_attribute"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_the_same_again_writes_nothing(connection, handler):
    only_postgresql()
    messages = [
        checkpoint(1, DeviceRecord(state="online", attributes={"a": Raw(b'{"b":1, "a":2}')}), seq=1),
        change(2, patch=RecordPatch(state="asleep"), seq=2),
        checkpoint(2, DeviceRecord(state="asleep", attributes={"a": Raw(b'{"b":1, "a":2}')})),
    ]
    hand(handler, *messages)
    versions = "SELECT xmin::text, applied_at FROM device_session"
    before = connection.execute(versions).fetchall()
    hand(handler, *messages)
    hand(handler, messages[2], start=3)
    assert connection.execute(versions).fetchall() == before


@pytest.mark.parametrize("number", ["1e22", "1e23", "12345678901234567e3", "1e308", "0e9", "-0.0", "7e-320", "1.50e1"])
def test_a_number_that_the_database_spells_anew_is_the_same_again(connection, handler, postgres, number):
    only_postgresql()
    message = checkpoint(1, DeviceRecord(state="online", attributes={"a": Raw(number.encode())}), seq=1)
    hand(handler, message)
    versions = "SELECT xmin::text, applied_at FROM device_session"
    before = connection.execute(versions).fetchall()
    hand(handler, message)
    with contextlib.closing(make_handler(postgres)) as other:  # remembers nothing: it compares with what is stored
        hand(other, message, start=3)
    assert connection.execute(versions).fetchall() == before


@pytest.mark.parametrize(
    "second",
    [
        DeviceRecord(state="online", attributes={"a": Raw(b"2")}),
        DeviceRecord(state="online", attributes={"a": Raw(b"1"), "b": Raw(b"1")}),
        DeviceRecord(state="online"),
        DeviceRecord(state="online", name="other", attributes={"a": Raw(b"1")}),
        DeviceRecord(state="online", interfaces=(Interface(mac="02:00:00:00:00:01"),), attributes={"a": Raw(b"1")}),
    ],
)
def test_a_checkpoint_of_equal_rev_that_differs_in_content_alone_is_written(connection, handler, second):
    hand(handler, checkpoint(1, DeviceRecord(state="online", attributes={"a": Raw(b"1")})))
    hand(handler, checkpoint(1, second), start=1)
    assert same_record(rows_of(connection)[SESSION].record, second)


def test_state_changes_and_events_are_remembered_once(connection, handler):
    said = {"held_by": Raw(b'"x"')}
    event = Event(v=1, rae=RAE, session=SESSION, at=AT, epoch=EPOCH, code="identity.conflict", detail=said, seq=3)
    messages = [
        checkpoint(1, DeviceRecord(state="online"), seq=1),
        later(change(2, patch=RecordPatch(state="asleep"), seq=2, cause="probe")),
        event,
        later(change(3, patch=RecordPatch(state="online"), seq=4), 2),
        later(closed(4, seq=5), 3),
    ]
    for number, message in enumerate(messages):
        hand(handler, message, start=number)
    hand(handler, *messages[1:], start=5)  # delivered again, at other offsets
    found = [(code, detail) for _, code, detail in events_of(connection, RAE)]
    assert found == [
        ("state", {"from": None, "to": "online", "rev": 1, "cause": None}),
        ("identity.conflict", {"held_by": "x"}),
        ("state", {"from": "online", "to": "asleep", "rev": 2, "cause": "probe"}),
        ("state", {"from": "asleep", "to": "online", "rev": 3, "cause": None}),
        ("closed", {"reason": "left", "successor": None}),
    ]


@pytest.mark.parametrize("is_straight", [True, False])
def test_states_that_come_together_are_one_event_that_tells_the_way(connection, handler, monkeypatch, is_straight):
    if not is_straight:
        always_by_full_rules(monkeypatch)
    hand(handler, checkpoint(1, DeviceRecord(state="online"), seq=1))
    states = ["online", "asleep", "asleep", "offline"]
    changes = [later(change(2 + n, patch=RecordPatch(state=state), seq=2 + n), 1 + n) for n, state in enumerate(states)]
    hand(handler, *changes, start=1)
    hand(handler, *changes, start=1)
    _, (_, code, detail) = events_of(connection, RAE)
    assert code == "state"
    assert detail | {"way": json.loads(detail["way"])} == {
        "from": "online",
        "to": "offline",
        "rev": 5,
        "cause": None,
        "passed": 2,
        "way": [
            ["2026-11-25T04:00:02.123000Z", 3, 3, "asleep", None],
            ["2026-11-25T04:00:04.123000Z", 5, 5, "offline", None],
        ],
    }


def later(message, seconds=1):
    return msgspec.structs.replace(message, at=AT + timedelta(seconds=seconds))


def test_a_status_is_timed_by_the_bridge_and_a_retained_copy_times_nothing(connection, handler):
    asked = "SELECT state, run, heard_at FROM rae"
    hand(handler, status(), headers=[("mqtt-received-at", b"2026-11-25T05:00:00.000Z"), ("mqtt-retain", b"1")])
    assert connection.execute(asked).fetchone() == ("ready", 1, None)
    hand(handler, status(run=2), start=1, headers=[("mqtt-received-at", b"2026-11-25T05:00:01.000Z")])
    state, run, heard_at = connection.execute(asked).fetchone()
    assert (state, run, heard_at.isoformat()[:19]) == ("ready", 2, "2026-11-25T05:00:01")
    hand(handler, status(run=2, state="lost"), status(run=2), start=2)
    assert connection.execute(asked).fetchone()[:2] == ("lost", 2)


BROKEN = {
    "bad JSON": (info_topic(RAE, SESSION), b"{", "malformed"),
    "wrong type": (info_topic(RAE, SESSION), encode(change(7)).replace(b'"rev":7', b'"rev":"7"'), "malformed"),
    "NUL in a text": (
        info_topic(RAE, SESSION),
        encode(change(7, patch=RecordPatch(name="X"))).replace(b'"X"', b'"\\u0000"'),
        "text",
    ),
    "rev beyond int64": (
        info_topic(RAE, SESSION),
        encode(change(7)).replace(b'"rev":7', b'"rev":9223372036854775808'),
        "range",
    ),
    "topic of another RAE": (info_topic("RAE-8", SESSION), encode(change(7)), "mismatch"),
    "unknown kind": (info_topic(RAE, SESSION), encode(change(7)).replace(b'"change"', b'"chance"'), "unsupported"),
    "empty value": (info_topic(RAE, SESSION), b"", "empty"),
    "no value": (info_topic(RAE, SESSION), None, "empty"),
    "no key": (None, encode(change(7)), "no_key"),
    "another feed's key": ("dmp/v1/RAE-7/rae/ack", encode(change(7)), "mismatch"),
}


def test_broken_messages_cost_exactly_themselves(connection, handler):
    records, expected = [], {}
    for number, (topic, value, reason) in enumerate(BROKEN.values()):
        good = checkpoint(1, DeviceRecord(name=f"n{number}"), session=session_id(100 + number))
        records.append(record_of(good, 2 * number))
        key = None if topic is None else topic.encode()
        records.append(Record(2 * number + 1, TIMESTAMP_MS, key, value, ()))
        expected[2 * number + 1] = reason
    output = OutputTwin()
    handler.handle(records, output)
    reasons = {offset: reason for offset, (reason, _) in output.refused.items()}
    reasons.pop(2 * len(BROKEN) - 1)  # of the foreign feed any reason will do
    expected.pop(2 * len(BROKEN) - 1)
    assert reasons == expected
    assert len(output.refused) == len(BROKEN)
    assert len(rows_of(connection)) == len(BROKEN)


def test_what_only_the_database_refuses_costs_exactly_itself(connection, handler):
    connection.execute("ALTER TABLE device_session ADD CHECK (name <> 'poison')")
    messages = []
    for number in range(20):
        session = session_id(number)
        messages.append(checkpoint(1, DeviceRecord(name=f"n{number}"), session=session))
        name = "poison" if number % 7 == 3 else f"m{number}"
        messages.append(change(2, patch=RecordPatch(name=name), session=session))
        messages.append(change(3, patch=RecordPatch(state="online"), session=session))
    output = hand(handler, *messages)
    bad = [number for number in range(20) if number % 7 == 3]
    assert {offset: reason for offset, (reason, _) in output.refused.items()} == {
        3 * number + 1: "refused" for number in bad
    }
    assert "23514" in output.refused[10][1]
    for number in range(20):
        row = rows_of(connection)[session_id(number)]
        assert (row.rev, row.record.state, row.stale) == (3, "online", number in bad)
        assert row.record.name == (f"n{number}" if number in bad else f"m{number}")


def test_a_poisonous_status_costs_itself(connection, handler):
    connection.execute("ALTER TABLE rae ADD CHECK (run <> 2)")
    output = hand(handler, status(run=1), status(run=2), checkpoint(1))
    assert set(output.refused) == {1}
    assert connection.execute("SELECT run FROM rae").fetchone() == (1,)
    assert len(rows_of(connection)) == 1


def test_a_database_that_is_away_costs_time_and_nothing_else(connection, postgres):
    only_postgresql()
    allow = "UPDATE pg_database SET datallowconn = %s WHERE datname = current_database()"
    delays_s = []

    def sleep(delay_s):
        delays_s.append(delay_s)
        if len(delays_s) == 20:
            connection.execute(allow, (True,))

    connection.execute(allow, (False,))
    with contextlib.closing(make_handler(postgres, sleep=sleep)) as handler:
        output = hand(handler, checkpoint(1), change(2))
    assert output.refused == {}
    assert output.waits == len(delays_s) == 20
    assert max(delays_s) <= 2.0
    assert "not currently accepting connections" in output.said[0]
    assert rows_of(connection)[SESSION].rev == 2


def test_two_zombies_on_one_range_in_different_batches(connection, postgres):
    """Two workers that both believe to own the partition: rows end as if one had read the range once."""
    messages = []
    for rev in range(1, 16):
        for number in range(12):
            attributes = {name: Raw(str(rev * 10 + number).encode()) for name in ("a", "b")[: 1 + rev % 2]}
            session = session_id(number)
            if rev == 1:
                messages.append(checkpoint(1, DeviceRecord(attributes=attributes), session=session, seq=1))
            else:
                messages.append(change(rev, patch=RecordPatch(attributes=attributes), session=session, seq=rev))
    records = [record_of(message, offset) for offset, message in enumerate(messages)]
    start = threading.Barrier(2)
    outputs = [OutputTwin(), OutputTwin()]

    def work(output, size):
        handler = make_handler(postgres)
        with contextlib.closing(handler):
            start.wait(20)
            for at in range(0, len(records), size):
                handler.handle(records[at : at + size], output)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(outputs, (7, 31), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [output.refused for output in outputs] == [{}, {}]
    for number in range(12):
        row = rows_of(connection)[session_id(number)]
        assert (row.rev, row.stale) == (15, False)
        assert row.record.attributes == {name: Raw(str(150 + number).encode()) for name in ("a", "b")}


def test_a_wide_batch_goes_in_transactions_of_bounded_size(connection, postgres):
    only_postgresql()
    handler = make_handler(postgres, transaction_sessions_max=100)
    with contextlib.closing(handler):
        hand(handler, *(checkpoint(1, session=session_id(number)) for number in range(250)))
    found = connection.execute("SELECT xmin::text, count(*) FROM device_session GROUP BY 1").fetchall()
    assert sorted(count for _, count in found) == [50, 100, 100]


def test_it_wants_wide_batches_unless_few_sessions_say_much(connection, handler):
    wide = handler.batch_bytes_wanted
    changes = [change(rev, seq=rev) for rev in range(2, 1200)]
    hand(handler, checkpoint(1, seq=1), *changes)
    narrow = handler.batch_bytes_wanted
    assert narrow < wide
    hand(handler, checkpoint(1200, seq=1200), start=1300)
    assert handler.batch_bytes_wanted == narrow, "a small batch says nothing"
    hand(handler, *(checkpoint(1, session=session_id(number)) for number in range(1000)), start=1400)
    assert handler.batch_bytes_wanted == wide


@pytest.mark.parametrize("value", [b'"%s"', b'["%s"]'], ids=["text", "list"])
def test_a_transaction_of_large_values_is_bounded_too(connection, postgres, value):
    only_postgresql()
    record = DeviceRecord(attributes={"a": Raw(value % (b"x" * 16_000))})
    with contextlib.closing(make_handler(postgres, transaction_bytes_max=64 * 1024)) as handler:
        for rev in (1, 2):
            large = [msgspec.structs.replace(record, attributes={f"a{rev}": record.attributes["a"]}) for _ in range(9)]
            hand(
                handler,
                *(
                    checkpoint(1, each, session=session_id(n))
                    if rev == 1
                    else change(2, patch=RecordPatch(attributes=each.attributes), session=session_id(n))
                    for n, each in enumerate(large)
                ),
                start=9 * rev,
            )
            found = connection.execute("SELECT xmin::text, count(*) FROM device_session GROUP BY 1").fetchall()
            assert len(found) == 3, found  # four texts of 16,000 fit into 64 KiB
            assert max(count for _, count in found) <= 4
