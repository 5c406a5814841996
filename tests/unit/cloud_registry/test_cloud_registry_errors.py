"""What errors of a real PostgreSQL do to a batch, code by code: raised inside it, by triggers, whatever is written."""

import contextlib

import pytest
from psycopg import errors

from dmpd.cloud_registry import patience, sink
from dmpd.model.messages import Roster
from dmpd.model.record import DeviceRecord, RecordPatch
from tests.support import sql_faults
from tests.support.messages import AT, EPOCH, RAE, change, checkpoint, session_id
from tests.support.rows import OutputTwin, make_handler, migrated, record_of, rows_of

pytestmark = pytest.mark.services

SESSIONS = [session_id(number) for number in range(9)]
BAD = SESSIONS[4]


@pytest.fixture(scope="module")
def database(postgres_server):
    with postgres_server.database() as settings, migrated(settings) as connection:
        sql_faults.install(connection)
        yield settings, connection


@pytest.fixture
def connection(database):
    _, connection = database
    yield connection
    sql_faults.fail_every(connection, 0)
    sql_faults.poison(connection, None)
    connection.execute("TRUNCATE device_session, device_interface, device_attribute, device_event, sink_probe")


class Sleeps:
    """Instead of sleeping; ``then`` happens at the so-many-th time."""

    def __init__(self, at=0, then=None):
        self.delays_s = []
        self.at, self.then = at, then

    def __call__(self, delay_s):
        self.delays_s.append(delay_s)
        if len(self.delays_s) == self.at:
            self.then()


def play(database, messages, sleep):
    output = OutputTwin()
    with contextlib.closing(make_handler(database[0], sleep=sleep, transaction_sessions_max=4)) as handler:
        handler.handle([record_of(message, offset) for offset, message in enumerate(messages)], output)
    return output


def history():
    """Three messages of each of nine sessions; the second one of one of them is poison."""
    for rev in (1, 2, 3):
        for session in SESSIONS:
            name = "poison" if (session, rev) == (BAD, 2) else f"n{rev}"
            if rev == 1:
                yield checkpoint(1, DeviceRecord(name=name), session=session, seq=1)
            else:
                patch = RecordPatch(name=name) if rev == 2 else RecordPatch(state="online")
                yield change(rev, patch=patch, session=session, seq=rev)


POISON_OFFSET = 9 + 4


def assert_all_but_the_poison(connection, *, is_lost):
    rows = rows_of(connection)
    assert rows.keys() == set(SESSIONS)
    for session, row in rows.items():
        lost = is_lost and session == BAD
        expected = "n1" if lost else "poison" if session == BAD else "n2"
        assert (row.rev, row.record.state, row.stale, row.record.name) == (3, "online", lost, expected)


@pytest.mark.parametrize(
    "state",
    [
        "40001",
        "40P01",
        "40003",
        "53100",
        "53200",
        "53300",
        "57P01",
        "57P02",
        "57P03",
        "08006",
        "25006",
        "25P03",
        "57014",
    ],
)
def test_what_is_no_matter_of_data_costs_attempts(database, connection, state):
    sql_faults.fail_first(connection, 7, state)
    sleeps = Sleeps()
    output = play(database, history(), sleeps)
    assert output.refused == {}
    assert output.waits >= 3
    assert any(state in said for said in output.said)
    assert_all_but_the_poison(connection, is_lost=False)


@pytest.mark.parametrize("state", ["XX000", "XXUUU", "23503", "23505", "58030", "0A000", "26000"])
def test_doubts_that_pass_cost_nobody(database, connection, state):
    sql_faults.fail_first(connection, 7, state)
    output = play(database, history(), Sleeps())
    assert output.refused == {}
    assert_all_but_the_poison(connection, is_lost=False)


@pytest.mark.parametrize(
    "state",
    [
        "22003",
        "22P02",
        "22P05",
        "22021",
        "23502",
        "23514",
        "54000",
        "54001",
        "08P01",
        "XX000",
        "XXUUU",
        "23503",
        "23505",
    ],
)
def test_a_record_that_cannot_be_stored_costs_itself(database, connection, state):
    sql_faults.poison(connection, state)
    output = play(database, history(), Sleeps())
    assert set(output.refused) == {POISON_OFFSET}
    reason, detail = output.refused[POISON_OFFSET]
    assert reason == "refused"
    assert state in detail
    assert_all_but_the_poison(connection, is_lost=True)
    assert connection.execute("SELECT count(*) FROM sink_probe").fetchone() == (1,), (
        "judged after a write that succeeded"
    )


@pytest.mark.parametrize("state", ["22003", "XX000"])
def test_nothing_is_judged_while_no_other_write_succeeds(database, connection, state):
    sql_faults.poison(connection, state)
    connection.execute("ALTER TABLE sink_probe RENAME TO gone")
    sleeps = Sleeps(at=40, then=lambda: connection.execute("ALTER TABLE gone RENAME TO sink_probe"))
    output = play(database, history(), sleeps)
    assert len(sleeps.delays_s) >= 40
    assert set(output.refused) == {POISON_OFFSET}
    assert_all_but_the_poison(connection, is_lost=True)


@pytest.mark.parametrize("state", ["57014", "55P03"])
def test_a_record_that_is_too_slow_waits_and_holds_up_what_comes_before_it_only_in_its_transaction(
    database, connection, state
):
    sql_faults.poison(connection, state)
    others = []

    def look_then_cure():
        others.extend(rows_of(connection))
        sql_faults.poison(connection, None)

    output = play(database, history(), Sleeps(at=30, then=look_then_cure))
    assert output.refused == {}
    assert set(SESSIONS[:4]) <= set(others), "what stands before it is written"
    assert_all_but_the_poison(connection, is_lost=False)


def test_a_roster_is_not_left_out_because_the_database_is_slow(database, connection, monkeypatch):
    play(database, [checkpoint(1, session=SESSIONS[0], seq=1)], Sleeps())
    find, tries = sink.find_phantoms, []

    def slow(used, rosters):
        tries.append(1)
        if len(tries) <= 9:
            raise errors.QueryCanceled("canceling statement due to statement timeout")
        return find(used, rosters)

    monkeypatch.setattr(sink, "find_phantoms", slow)
    first, last = SESSIONS[0], SESSIONS[-1]
    roster = Roster(v=1, rae=RAE, session="rae", at=AT, epoch=EPOCH, first=first, last=last, sessions=(), seq_high=5)
    assert play(database, [roster], Sleeps()).refused == {}
    assert rows_of(connection)[SESSIONS[0]].absent


@pytest.mark.parametrize("state", ["42501", "42P01", "42703"])
def test_what_needs_a_person_halts_and_goes_on_by_itself_afterwards(database, connection, state):
    sql_faults.poison(connection, state)
    sleeps = Sleeps(at=20, then=lambda: sql_faults.poison(connection, None))
    output = play(database, history(), sleeps)
    assert output.refused == {}
    assert output.halts >= 18
    assert max(sleeps.delays_s) <= 5.0, "it says so more often than it tries"
    assert state in output.said[-1]
    assert_all_but_the_poison(connection, is_lost=False)


def test_a_slow_database_is_said_to_be_slow_while_the_batch_goes_on(database, connection, monkeypatch):
    """The parent hears of a batch at its end only, and takes a silent worker for stuck."""
    monkeypatch.setattr(patience, "_SAY_EVERY_S", -1.0)
    output = play(database, history(), Sleeps())
    assert set(output.said) == {"the database is slow"}
    assert output.halts == 0
    assert_all_but_the_poison(connection, is_lost=False)


def test_a_backend_that_one_record_kills_costs_that_record(database, connection):
    """The connection is lost, without any code: nothing else says so of the record."""
    connection.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
    )
    connection.execute(
        "CREATE TRIGGER die BEFORE INSERT OR UPDATE ON device_session"
        " FOR EACH ROW WHEN (NEW.name = 'poison') EXECUTE FUNCTION die()"
    )
    try:
        output = play(
            database, history(), Sleeps(at=40, then=lambda: connection.execute("DROP TRIGGER die ON device_session"))
        )
    finally:
        connection.execute("DROP FUNCTION die CASCADE")
    assert output.refused == {}, "57P01 says that the server stops, never that a record is bad"
    assert_all_but_the_poison(connection, is_lost=False)
