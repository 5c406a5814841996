"""``kill -9`` in the middle of a transaction, of the worker and of its PostgreSQL backend: all of the batch is written
in the end, and nothing of it twice or by half.
"""

import contextlib
import multiprocessing
import os
import signal
import threading

import pytest

from dmpd.lab.postgresql import PostgreSQL
from dmpd.model.record import RecordPatch
from tests.support import sql_faults
from tests.support.cloud_tables import ModelTables, assert_same_tables, stored_tables
from tests.support.edge_histories import Edge
from tests.support.messages import change, checkpoint, session_id
from tests.support.rows import OutputTwin, handle_all, make_handler, migrated, record_of, rows_of
from tests.support.services import PostgreSQLService, public_folder, start

pytestmark = pytest.mark.services

RAE = "R-1"
STEPS = [("change", session, number) for number in range(6) for session in range(3)]


@pytest.fixture(scope="module")
def cluster():
    """Not the session's: that one has synchronous_commit off, so a reset takes back what it confirmed."""
    with public_folder() as folder:
        cluster = PostgreSQL(folder / "postgresql", durable=True)
        with start(cluster) as process:
            yield PostgreSQLService(process, cluster)


@pytest.fixture
def database(cluster):
    with cluster.database() as settings:
        with migrated(settings) as connection:
            sql_faults.install(connection)
        yield settings


class Log:
    """Two batches of one RAE: what is there before, and what is being written when the kill comes."""

    def __init__(self):
        self.messages = []
        edge = Edge(RAE, self.messages.append)
        for kind, session, number in STEPS:
            edge.step(kind, session, number)
        records = [record_of(message, offset) for offset, message in enumerate(self.messages)]
        self.before, self.batch = records[:5], records[5:]

    def tables(self, messages=None):
        tables = ModelTables()
        for message in self.messages if messages is None else messages:
            tables.take(message)
        return tables.tables()


@pytest.mark.parametrize("table", ["device_session", "device_attribute", "device_event"])
def test_a_worker_killed_in_mid_transaction_leaves_nothing_and_its_successor_all(database, table):
    log = Log()
    with migrated(database) as connection:
        handle_all(database, [log.before])
        worker = multiprocessing.get_context("spawn").Process(target=handle_all, args=(database, [log.batch]))
        with sql_faults.gate(connection, table):
            worker.start()
            [backend] = sql_faults.wait_for_waiters(connection)
            worker.kill()
            worker.join(30)
            assert worker.exitcode == -signal.SIGKILL
            assert_same_tables(stored_tables(connection, [RAE]), log.tables(log.messages[:5]))
            successor = threading.Thread(target=handle_all, args=(database, [log.batch]))
            successor.start()
            sql_faults.wait_for_waiters(connection, 2)  # for the dead one's locks, or at the gate
        successor.join(60)
        assert not successor.is_alive()
        assert_same_tables(stored_tables(connection, [RAE]), log.tables())
        sql_faults.wait_until_gone(connection, backend)


@pytest.mark.parametrize("table", ["device_session", "device_attribute", "device_event"])
def test_a_backend_killed_in_mid_transaction_costs_time_only(database, table):
    """The cluster resets itself: everybody's connection ends, the batch is written once it is back."""
    log, output = Log(), OutputTwin()
    handle_all(database, [log.before])
    with contextlib.closing(make_handler(database)) as handler:
        thread = threading.Thread(target=handler.handle, args=(log.batch, output))
        with migrated(database) as connection:
            sql_faults.close_gate(connection, table)  # the reset opens it, since it ends this connection too
            thread.start()
            [backend] = sql_faults.wait_for_waiters(connection)
            os.kill(backend, signal.SIGKILL)
            thread.join(60)
        assert not thread.is_alive()
    assert output.refused == {}
    assert output.waits >= 1
    with migrated(database) as connection:
        assert_same_tables(stored_tables(connection, [RAE]), log.tables())


def test_a_record_that_crashes_the_server_costs_itself(database):
    """Its backend dies of SIGKILL each time, and everybody's with it; the work waits until the server is back."""
    session, other = session_id(1), session_id(2)
    messages = [
        checkpoint(1, session=session),
        change(2, patch=RecordPatch(name="poison"), session=session),
        checkpoint(1, session=other),
        change(2, patch=RecordPatch(name="good"), session=other),
    ]
    with migrated(database) as connection:
        connection.execute(
            "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE"
            " 'COPY (SELECT 1) TO PROGRAM ' || quote_literal('kill -9 ' || pg_backend_pid()); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER crash BEFORE INSERT OR UPDATE ON device_session"
            " FOR EACH ROW WHEN (NEW.name = 'poison') EXECUTE FUNCTION crash()"
        )
    output = OutputTwin()
    with contextlib.closing(make_handler(database, retry_max_s=0.2)) as handler:
        handler.handle([record_of(message, offset) for offset, message in enumerate(messages)], output)
    assert set(output.refused) == {1}
    assert output.refused[1][0] == "refused"
    with migrated(database) as connection:
        found = {key: (row.rev, row.stale, row.record.name) for key, row in rows_of(connection).items()}
    assert found == {session: (1, False, None), other: (2, False, "good")}


def test_a_connection_ended_in_mid_transaction_costs_an_attempt(database):
    log, output = Log(), OutputTwin()
    handle_all(database, [log.before])
    with migrated(database) as connection, contextlib.closing(make_handler(database)) as handler:
        thread = threading.Thread(target=handler.handle, args=(log.batch, output))
        with sql_faults.gate(connection, "device_attribute"):
            thread.start()
            for _ in range(3):
                [backend] = sql_faults.wait_for_waiters(connection)
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
        thread.join(60)
        assert not thread.is_alive()
        assert output.refused == {}
        assert output.waits >= 3
        assert_same_tables(stored_tables(connection, [RAE]), log.tables())
