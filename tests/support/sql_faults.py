"""Faults inside the database, whoever writes and by whatever statements: errors of any SQLSTATE in the middle of a
transaction or at its COMMIT, and a gate at which writers wait in the middle of theirs. Made of triggers.
"""

import contextlib
import threading
import time

from tests.support.services import only_postgresql

TABLES = ("device_session", "device_interface", "device_attribute", "device_event", "rae")
_GATE = 4711

_FUNCTIONS = f"""
CREATE SEQUENCE fault_calls;
CREATE TABLE fault_plan (every bigint, until bigint, state text);
CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE plan fault_plan; call bigint;
BEGIN
    SELECT * INTO plan FROM fault_plan;
    IF FOUND THEN
        call := nextval('fault_calls');  -- a sequence keeps its count when the transaction fails
        IF call % plan.every = 0 AND call <= plan.until THEN
            RAISE EXCEPTION 'a fault' USING ERRCODE = plan.state;
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TABLE poison_plan (state text);
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'poison' USING ERRCODE = (SELECT state FROM poison_plan);
END $$;
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({_GATE});
    RETURN NULL;
END $$;
"""


def install(connection):
    """Once per database, which has the tables; nothing happens until a plan is made."""
    only_postgresql()
    connection.execute(_FUNCTIONS)
    for table in TABLES:
        connection.execute(
            f"CREATE TRIGGER fault AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION fault()"
        )
        connection.execute(
            f"CREATE CONSTRAINT TRIGGER fault_at_commit AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fault()"
        )


def fail_every(connection, calls, state="40001", times=8):
    """Each ``calls``-th statement, and row at COMMIT, fails with ``state``, ``times`` times; ``calls`` 0 = none.

    Not for ever: a transaction of more than ``calls`` would never come through.
    """
    connection.execute("DELETE FROM fault_plan")
    connection.execute("ALTER SEQUENCE fault_calls RESTART")
    if calls:
        connection.execute("INSERT INTO fault_plan VALUES (%s, %s, %s)", (calls, calls * times, state))


def fail_first(connection, times, state):
    """The next ``times`` statements that write fail with ``state``."""
    fail_every(connection, 1, state, times)


def poison(connection, state):
    """A device whose name is ``poison`` cannot be written: the attempt fails with ``state``; None = it can again."""
    connection.execute("DELETE FROM poison_plan")
    connection.execute("DROP TRIGGER IF EXISTS poison ON device_session")
    if state is not None:
        connection.execute("INSERT INTO poison_plan VALUES (%s)", (state,))
        connection.execute(
            "CREATE TRIGGER poison BEFORE INSERT OR UPDATE ON device_session"
            " FOR EACH ROW WHEN (NEW.name = 'poison') EXECUTE FUNCTION poison()"
        )


def close_gate(connection, table, doing="INSERT OR UPDATE"):
    """From now on whoever wrote to ``table`` waits, in its transaction, until ``connection`` opens the gate or ends."""
    connection.execute(f"CREATE TRIGGER gate AFTER {doing} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION gate()")
    connection.execute("SELECT pg_advisory_lock(%s)", (_GATE,))


@contextlib.contextmanager
def gate(connection, table, doing="INSERT OR UPDATE"):
    """The gate is closed while this lasts."""
    close_gate(connection, table, doing)
    try:
        yield
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_GATE,))


def race(connection, table, works):
    """Run ``works``, a thread each: the next begins when the ones before wait, the first of them behind its writes."""
    threads = [threading.Thread(target=work) for work in works]
    with gate(connection, table):
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            wait_for_waiters(connection, waiting)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def wait_for_waiters(connection, count=1, timeout_s=60):
    """Until ``count`` workers wait for a lock; returns their backends' pids."""
    asked = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'dmpd-cloud-%'"
        " AND datname = current_database()"
    )
    deadline_s = time.monotonic() + timeout_s
    while len(found := connection.execute(asked).fetchall()) < count:
        assert time.monotonic() < deadline_s, f"not {count} workers in mid-transaction within {timeout_s} s"
        time.sleep(0.02)
    return [pid for (pid,) in found]


def wait_until_gone(connection, pid, timeout_s=60):
    """Until the backend ``pid`` has ended: its client is dead, and it notices."""
    deadline_s = time.monotonic() + timeout_s
    while connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
        assert time.monotonic() < deadline_s, f"backend {pid} lives"
        time.sleep(0.02)
