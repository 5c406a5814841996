"""Every table of the Cloud Registry equals what the model makes of the same log, at both isolation levels, however it
is cut into batches, read again, written by two at once, and whatever transaction fails in between.
"""

import contextlib
import itertools
import threading
import time
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dmpd.cloud_registry.same_json import same_record
from dmpd.model.messages import Status
from dmpd.runtime.settings import DatabaseSettings
from tests.support import sql_faults
from tests.support.cloud_tables import (
    CHANGED_AT,
    SEQ,
    ModelTables,
    assert_same_tables,
    places,
    same,
    stored_tables,
    without_repeats,
)
from tests.support.edge_histories import LOGS, STEP, Edge, unused_raes
from tests.support.messages import AT
from tests.support.rows import OutputTwin, make_handler, migrated, record_of, rows_of

pytestmark = pytest.mark.services

LEVELS = (r"read\\ committed", "serializable")
PARTITION = 3
FAITHFUL = st.lists(STEP.filter(lambda step: step[0] not in ("lose", "phantom")), min_size=1, max_size=24)
STATE_SAID_AGAIN = [
    ("change", 0, 0, 0),
    ("change", 0, 0, 1),
    ("checkpoint row", 0, 0, 0),
    ("change", 0, 0, 1),
    ("repeat", 0, 0, 1),
]
"""A checkpoint that says no new state, a change that does, and both again: the checkpoint's is no way back."""
LIVE = st.lists(
    st.tuples(
        st.sampled_from(("change",) * 8 + ("repeat", "repeat", "checkpoint row", "status", "roster", "closed")),
        st.integers(0, 1),
        st.integers(0, 2),
        st.sampled_from((0, 5, 5, 6)),
    ),
    min_size=8,
    max_size=40,
)
"""Changes of attributes and states above all."""
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
REWINDS = st.lists(st.integers(1, 30), max_size=3)
CHECK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


class Patience:
    """Sleeps; ends a test that would wait for ever."""

    def __init__(self):
        self.left = 20_000

    def __call__(self, delay_s):
        self.left -= 1
        assert self.left, "the database takes nothing"
        time.sleep(delay_s)


class Database:
    """A database whose writers work at one isolation level, and one handler that all examples share."""

    def __init__(self, level, database, connection):
        self.level = level
        self.connection = connection
        self.settings = DatabaseSettings(
            conninfo=f"{database.conninfo} options='-c default_transaction_isolation={level}'"
        )
        self.handler = self.make_handler()

    def make_handler(self):
        return make_handler(
            self.settings,
            partition=PARTITION,
            sleep=Patience(),
            transaction_sessions_max=2,
            retry_first_s=0.001,
            retry_max_s=0.01,
        )


@pytest.fixture(scope="module", params=LEVELS)
def database(request, postgres_server):
    with postgres_server.database() as plain, migrated(plain) as connection:
        sql_faults.install(connection)
        found = Database(request.param, plain, connection)
        with contextlib.closing(found.handler):
            yield found


@pytest.fixture(scope="module")
def some_database(postgres_server):
    with postgres_server.database() as plain, migrated(plain) as connection:
        sql_faults.install(connection)
        found = Database(LEVELS[0], plain, connection)
        with contextlib.closing(found.handler):
            yield found


class Log:
    """What two RAEs said, as records of one partition, and what the model makes of it."""

    def __init__(self, steps, *, reuses_ids=True):
        self.raes = unused_raes()
        self.messages = []
        self.edges = [Edge(rae, self.messages.append, reuses_ids=reuses_ids) for rae in self.raes]
        for kind, which, nth, number in steps:
            self.edges[which].step(kind, nth, number)

    def heal(self):
        """A checkpoint of every open session, as each RAE sends them every ten minutes."""
        for edge in self.edges:
            edge.loses = False
            for nth in range(3):
                edge.step("heal", nth, 0)

    @property
    def records(self):
        return [
            record_of(message, offset, [("mqtt-received-at", _received_at(offset).isoformat().encode())])
            for offset, message in enumerate(self.messages)
        ]

    def model(self):
        tables = ModelTables()
        for offset, message in enumerate(self.messages):
            tables.take(message, received_at=_received_at(offset))
        return tables


def _received_at(offset):
    return AT + timedelta(seconds=offset)


def play(handler, records, cuts, rewinds=(), *, forgets=False):
    """Hand over ``records`` in batches of the sizes ``cuts``, again and again; going back ``rewinds`` times.

    ``forgets``: each batch meets rows that the worker does not remember, as most live records do.
    """
    output = OutputTwin()
    sizes, back, at = itertools.cycle(cuts), iter(rewinds), 0
    while at < len(records):
        size = next(sizes)
        if forgets:
            handler._straight._known.clear()
        handler.handle(records[at : at + size], output)
        at += size
        if at % 2:
            at = max(0, at - next(back, 0))
    assert output.refused == {}
    return output


def assert_exact(database, log):
    """All tables, and that each row names a record and a time that were about it."""
    stored, model = stored_tables(database.connection, log.raes), log.model().tables()
    assert_same_tables(without_repeats(stored), without_repeats(model))
    for key, row in stored["device_session"].items():
        said = [message for message in log.messages if (message.rae, message.session) == key]
        assert row[CHANGED_AT] in {message.at for message in said}
        assert row[SEQ] >= model["device_session"][key][SEQ], "a roster counts from it"
        assert row[SEQ] in {message.seq or 0 for message in said}
    for (rae, session), (partition, offset) in places(database.connection, log.raes).items():
        message = log.messages[offset]
        assert partition == PARTITION
        assert message.rae == rae
        assert message.session in (session, "rae")
        assert session != "rae" or isinstance(message, Status)


@settings(max_examples=25, deadline=None, suppress_health_check=CHECK)
@given(steps=LOGS)
def test_one_by_one_every_table_is_the_models(database, steps):
    log = Log(steps)
    play(database.handler, log.records, [1])
    assert_same_tables(stored_tables(database.connection, log.raes), log.model().tables())
    assert_exact(database, log)


@settings(max_examples=60, deadline=None, suppress_health_check=CHECK)
@given(steps=FAITHFUL, cuts=CUTS, rewinds=REWINDS, every=st.sampled_from([0, 0, 3, 5, 11]), forgets=st.booleans())
@example(steps=STATE_SAID_AGAIN, cuts=[9], rewinds=[], every=0, forgets=False)
def test_in_any_batches_every_table_is_the_models(database, steps, cuts, rewinds, every, forgets):
    """Also when transactions fail with 40001, in the middle and at COMMIT."""
    log = Log(steps)
    sql_faults.fail_every(database.connection, every)
    play(database.handler, log.records, cuts, rewinds, forgets=forgets)
    assert_exact(database, log)


@settings(max_examples=60, deadline=None, suppress_health_check=CHECK)
@given(steps=LIVE, cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6), every=st.sampled_from([0, 0, 3, 7]))
def test_what_comes_live_to_rows_that_nobody_has_read_is_the_models(database, steps, cuts, every):
    log = Log(steps)
    sql_faults.fail_every(database.connection, every)
    play(database.handler, log.records, cuts, forgets=True)
    assert_exact(database, log)


@settings(max_examples=25, deadline=None, suppress_health_check=CHECK)
@given(steps=FAITHFUL, cuts=st.tuples(CUTS, CUTS), rewinds=st.tuples(REWINDS, REWINDS), forgets=st.booleans())
def test_two_zombies_on_one_range_leave_what_one_leaves(database, steps, cuts, rewinds, forgets):
    """Two workers that both believe to own the partition, in different batches, at the same time."""
    log = Log(steps)
    sql_faults.fail_every(database.connection, 0)
    records, start, failures = log.records, threading.Barrier(2), []

    def work(handler, place):
        try:
            start.wait(30)
            play(handler, records, cuts[place], rewinds[place], forgets=forgets)
        except BaseException as error:
            failures.append(error)
            raise

    with contextlib.closing(database.make_handler()) as second:
        threads = [
            threading.Thread(target=work, args=(handler, place))
            for place, handler in enumerate((database.handler, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert failures == []
    assert_exact(database, log)


@settings(max_examples=50, deadline=None, suppress_health_check=CHECK)
@given(steps=LOGS, cuts=CUTS, rewinds=REWINDS, forgets=st.booleans())
def test_where_rows_are_lost_it_is_no_worse_and_checkpoints_heal_it(some_database, steps, cuts, rewinds, forgets):
    """What folding may differ in: content of stale rows, and a checkpoint that heals where it alone came too late."""
    database, log = some_database, Log(steps)
    play(database.handler, log.records, cuts, rewinds, forgets=forgets)
    expected = log.model().rows
    found = {(row.rae, row.session): row for rae in log.raes for row in rows_of(database.connection, rae).values()}
    assert found.keys() == expected.keys()
    truth = log.edges[0].truth | log.edges[1].truth
    for key, row in expected.items():
        mine = found[key]
        assert (mine.epoch, mine.rev, mine.closed, mine.successor) == (row.epoch, row.rev, row.closed, row.successor)
        assert (mine.stale, mine.absent) <= (row.stale, row.absent)
        if not mine.stale and mine.closed is None:
            assert same_record(mine.record, truth[*key, row.epoch, row.rev])
    before = len(log.messages)
    log.heal()
    play(database.handler, log.records[before:], cuts)
    stored, model = stored_tables(database.connection, log.raes), log.model().tables()
    for tables in (stored, model):
        del tables["device_event"]  # how a stale row came to its state is its own story
    assert_same_tables(without_repeats(stored), without_repeats(model))


@contextlib.contextmanager
def restored_afterwards(connection, raes):
    """What is in the tables of ``raes`` now comes back at the end, as from a backup."""
    with connection.transaction():
        for table in sql_faults.TABLES:
            connection.execute(f"DROP TABLE IF EXISTS backup_{table}")
            connection.execute(
                f"CREATE TEMP TABLE backup_{table} AS SELECT * FROM {table} WHERE rae = ANY(%s)", (list(raes),)
            )
    yield
    with connection.transaction():
        for table in sql_faults.TABLES:
            connection.execute(f"DELETE FROM {table} WHERE rae = ANY(%s)", (list(raes),))
            connection.execute(f"INSERT INTO {table} SELECT * FROM backup_{table}")


TWO_LIVES = [("change", 1, 0, 0)] * 2 + [("closed", 1, 0, 0)] + [("change", 0, 0, 0)] * 2 + [("change", 1, 0, 0)]


@settings(max_examples=50, deadline=None, suppress_health_check=CHECK)
@example(steps=TWO_LIVES, cuts=[1], parts=(8, 12), forgets=False)
@given(steps=LOGS, cuts=CUTS, parts=st.tuples(st.integers(0, 24), st.integers(0, 24)), forgets=st.booleans())
def test_after_a_restore_from_an_old_backup_no_row_is_wrong_and_checkpoints_heal_it(
    some_database, steps, cuts, parts, forgets
):
    """Kafka's offsets stay where they were, and so does the worker with whatever it remembers of the rows.

    No session has a second life under its id: only the tombstone, which a restore may take, tells it from the first.
    """
    database, log = some_database, Log(steps, reuses_ids=False)
    backup, restore = sorted(part * len(log.messages) // 24 for part in parts)
    play(database.handler, log.records[:backup], cuts)
    with restored_afterwards(database.connection, log.raes):
        play(database.handler, log.records[backup:restore], cuts)
    play(database.handler, log.records[restore:], cuts, forgets=forgets)
    truth = log.edges[0].truth | log.edges[1].truth
    for rae in log.raes:
        for row in rows_of(database.connection, rae).values():
            if not row.stale and row.closed is None:
                assert same_record(row.record, truth[rae, row.session, row.epoch, row.rev])
    before = len(log.messages)
    log.heal()
    play(database.handler, log.records[before:], cuts)
    for edge in log.edges:
        found = rows_of(database.connection, edge.rae)
        for session, held in edge.rows.items():
            row = found[session]
            if row.closed is None:  # else its end came before and the RAE is told to forget it
                assert (row.epoch, row.rev, row.stale, row.absent) == (held.epoch, held.rev, False, False)
                assert same_record(row.record, held.record)


def test_the_comparison_sees_what_differs(some_database):
    """It must be able to fail: one column, one child, one event less or other."""
    database, log = (
        some_database,
        Log([("change", 0, 0, 0), ("change", 0, 0, 8), ("change", 0, 0, 0), ("status", 0, 0, 0)]),
    )
    play(database.handler, log.records, [9])
    expected = log.model().tables()
    assert_same_tables(stored_tables(database.connection, log.raes), expected)
    assert all(expected.values()), "every table has rows"
    for damage in (
        "UPDATE device_session SET seq = seq + 1",
        "UPDATE device_session SET absent_at = now()",
        "UPDATE device_interface SET place = place + 100",
        "UPDATE device_attribute SET value = 'false'",
        "DELETE FROM device_event",
        "UPDATE rae SET status = '{}'",
    ):
        with database.connection.transaction(force_rollback=True):
            database.connection.execute(damage)
            damaged = stored_tables(database.connection, log.raes)
        with pytest.raises(AssertionError):
            assert_same_tables(damaged, expected)
    assert same("[1, true]") == same("[1.0,true]") != same("[1, 1]")
