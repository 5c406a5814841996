"""Rows in PostgreSQL equal the model's rows, whatever comes, in whatever batches, and however often."""

import itertools
from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from dmpd.cloud_registry.same_json import same_record
from dmpd.model.apply import apply_message
from dmpd.model.messages import Roster
from dmpd.model.rae import apply_roster
from dmpd.model.record import DeviceRecord, Interface, RecordPatch
from tests.support.messages import AT, change, checkpoint, closed, session_id
from tests.support.rows import OutputTwin, make_handler, migrated, record_of, rows_of

pytestmark = pytest.mark.services

SESSIONS = [session_id(number) for number in (1, 2, 3)]
STATES = ("online", "asleep", "offline")
VALUES = ("null", "0", "1", "true", '"ä\\u00e9 \\"x\\""', '{"b": [1.5, null, {}], "a": 1}', "-1e3", '""', "[]",
          "1e23", "[1e308]", "12345678901234567e3", "0.10000000000000000000001")  # fmt: skip
_numbers = itertools.count(1)


def value(epoch, rev):
    return Raw(VALUES[(epoch * 5 + rev) % len(VALUES)].encode())


def interfaces(epoch, rev):
    return tuple(
        Interface(
            mac=f"02:00:00:00:{epoch % 100:02d}:{each:02d}",
            ip4=f"10.0.{each}.{rev}" if each % 2 else None,
            ip6=("fe80::1", "fe80::2")[: rev % 3],
            hostname="höst",
            mac_random=bool(rev % 2),
        )
        for each in range((epoch + rev) % 4)
    )


def patch_of(epoch, rev):
    """What revision ``rev`` changes: one of five kinds of content in turn, one of them the end of an attribute."""
    kind = (epoch + rev) % 5
    if kind == 0:
        return {"patch": RecordPatch(attributes={"a": value(epoch, rev), "b": value(epoch, rev + 1)})}
    if kind == 1:
        return {"patch": RecordPatch(state=STATES[rev % 3], name=f"device {rev}")}
    if kind == 2:
        return {"patch": RecordPatch(interfaces=interfaces(epoch, rev))}
    if kind == 3:
        return {"patch": RecordPatch(esn=None if rev % 2 else "E", first_seen=AT, attributes={"c": value(epoch, rev)})}
    return {"unset": ("a",)}


def true_change(epoch, rev, session):
    said = change(rev, epoch=epoch, seq=rev, session=session, **patch_of(epoch, rev))
    return msgspec.structs.replace(said, at=AT + timedelta(seconds=rev))


def truth(epoch, rev, session):
    row, _ = apply_message(None, checkpoint(1, DeviceRecord(), epoch=epoch, session=session))
    for each in range(2, rev + 1):
        row, _ = apply_message(row, true_change(epoch, each, session))
    return row.record


def true_checkpoint(epoch, rev, session):
    return checkpoint(rev, truth(epoch, rev, session), epoch=epoch, session=session)


def roster(epoch, seq_high, listed):
    sessions = tuple(session for session, is_in in zip(SESSIONS, listed, strict=True) if is_in)
    return Roster(
        v=1,
        rae="RAE-7",
        session="rae",
        at=AT,
        epoch=epoch,
        first=SESSIONS[0],
        last=SESSIONS[1],
        sessions=tuple(session for session in sessions if session <= SESSIONS[1]),
        seq_high=seq_high,
    )


EPOCHS = st.sampled_from([1, 2])
REVS = st.integers(2, 9)
SESSION = st.sampled_from(SESSIONS)
MESSAGES = st.one_of(
    st.builds(true_change, EPOCHS, REVS, SESSION),
    st.builds(true_change, EPOCHS, REVS, SESSION),
    st.builds(true_change, st.just(1), REVS, SESSION),
    st.builds(true_checkpoint, EPOCHS, REVS, SESSION),
    st.builds(lambda epoch, rev, session: closed(rev, epoch=epoch, session=session), EPOCHS, REVS, SESSION),
    st.builds(roster, EPOCHS, REVS, st.tuples(st.booleans(), st.booleans(), st.booleans())),
)
BATCHES = st.lists(st.lists(MESSAGES, min_size=1, max_size=6), min_size=1, max_size=5)
REPLAYS = st.lists(st.integers(0, 4), max_size=2)


@pytest.fixture(scope="module")
def database(postgres_server):
    with postgres_server.database() as settings, migrated(settings) as connection:
        handler = make_handler(settings, transaction_sessions_max=2)
        yield connection, handler
        handler.close()


def one_by_one(messages):
    rows = {}
    for message in messages:
        if isinstance(message, Roster):
            rows = {session: apply_roster(row, message) for session, row in rows.items()}
        else:
            rows[message.session], _ = apply_message(rows.get(message.session), message)
    return rows


def play(handler, batches):
    """Hand over ``batches``; offsets are the places in the history, so a batch that comes again has its old ones."""
    starts = list(itertools.accumulate(map(len, batches), initial=0))
    output = OutputTwin()
    for batch, start in zip(batches, starts, strict=False):
        handler.handle([record_of(message, start + i) for i, message in enumerate(batch)], output)
    assert output.refused == {}
    assert output.waits == 0


def on_rae(rae, batches):
    return [[msgspec.structs.replace(message, rae=rae) for message in batch] for batch in batches]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for session, row in expected.items():
        mine = found[session]
        assert same_record(mine.record, row.record), session
        assert msgspec.structs.replace(mine, record=row.record) == row


def assert_as_good(found, expected):
    """What folding may differ in: content of stale rows, and a checkpoint that heals where it alone came too late."""
    assert found.keys() == expected.keys()
    for session, row in expected.items():
        mine = found[session]
        assert (mine.epoch, mine.rev, mine.closed) == (row.epoch, row.rev, row.closed)
        assert mine.stale <= row.stale
        assert mine.absent <= row.absent
        if not mine.stale and mine.closed is None:
            assert same_record(mine.record, truth(row.epoch, row.rev, session))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, replays=REPLAYS)
def test_rows_equal_the_model(database, batches, replays):
    connection, handler = database
    rae = f"RAE-{next(_numbers)}"
    batches = on_rae(rae, batches + [batches[place % len(batches)] for place in replays])
    play(handler, batches)
    messages = [message for batch in batches for message in batch]
    expected = one_by_one(messages)
    assert_as_good(rows_of(connection, rae), expected)
    healing = [true_checkpoint(row.epoch, row.rev, session) for session, row in expected.items() if row.closed is None]
    if healing:
        play(handler, on_rae(rae, [healing]))
    for session, row in rows_of(connection, rae).items():
        assert not row.stale
        assert not row.absent
        assert row.closed or same_record(row.record, truth(row.epoch, row.rev, session))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=12))
def test_one_by_one_rows_are_exactly_the_models(database, messages):
    connection, handler = database
    rae = f"RAE-{next(_numbers)}"
    (messages,) = on_rae(rae, [messages])
    play(handler, [[message] for message in messages])
    assert_same(rows_of(connection, rae), one_by_one(messages))
