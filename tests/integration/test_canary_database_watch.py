"""The canary's look at the rows: each is seen, timed by the monotonic clock, however the database's clock is set."""

import contextlib
import time
import uuid

import psycopg
import pytest

from dmpd.canary.database_watch import DatabaseWatch, read_rows, still_open
from dmpd.canary.plan import Plan, rae_of, session_of
from dmpd.cloud_registry.migrate import migrate
from dmpd.runtime.database import connect
from tests.support.platform import until
from tests.support.services import only_postgresql
from tests.support.stepping_clock import SteppingClock

pytestmark = pytest.mark.services
PLAN = Plan(run=str(uuid.UUID(int=3)), seed=1, epoch=9, first=1, last=3, changes=60, started_ms=1)
SLACK_NS = 20_000_000
"""By so much the clocks of one machine may seem to differ, asked over a socket of a busy one."""


class Rows:
    """Of the device sessions of ``PLAN``, written as the Cloud Registry writes them."""

    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self.revs = dict.fromkeys(PLAN.numbers, 0)
        for number in PLAN.numbers:
            self._connection.execute(
                "INSERT INTO device_session (rae, session, epoch, rev, seq, stale, state, changed_at, kafka_partition,"
                " kafka_offset, applied_at) VALUES (%s, %s, %s, 0, 0, false, 'online', now(), 0, 0, clock_timestamp())",
                (rae_of(number), session_of(PLAN.run, number), PLAN.epoch),
            )

    def write(self, number: int) -> tuple[int, int]:
        """The next rev of a client; between which instants that was."""
        self.revs[number] += 1
        before_ns = time.monotonic_ns()
        self._connection.execute(
            "UPDATE device_session SET rev = %s, applied_at = clock_timestamp() WHERE rae = %s",
            (self.revs[number], rae_of(number)),
        )
        return before_ns, time.monotonic_ns()

    def insert(self, rae: str, session: str, *, epoch: int, took_s: float = 0.0) -> None:
        """One that is open, and whose last change took so long to its row."""
        self._connection.execute(
            "INSERT INTO device_session (rae, session, epoch, rev, seq, stale, state, changed_at, kafka_partition,"
            " kafka_offset, applied_at) VALUES (%s, %s, %s, 7, 7, false, 'online', now() - %s * INTERVAL '1 second',"
            " 0, 0, now())",
            (rae, session, epoch, took_s),
        )

    def execute(self, statement: str, *values: object) -> list[tuple]:
        done = self._connection.execute(statement, values)
        return done.fetchall() if done.description else []

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def stepping(postgres):
    only_postgresql()
    with contextlib.closing(connect(postgres, application="test")) as connection:
        migrate(connection)
    return SteppingClock(postgres.conninfo)


@pytest.fixture
def rows(postgres, stepping):
    with contextlib.closing(Rows(postgres.conninfo)) as found:
        yield found


@pytest.fixture
def watch(postgres, rows):
    found = DatabaseWatch(postgres, plan=PLAN, others=list)
    found.start()
    yield found
    found.stop()


def seen(watch: DatabaseWatch, rows: Rows) -> int:
    """Wait for what was written last of every client; when it was seen."""
    until(lambda: watch.revs == rows.revs, "every row is seen", said=lambda: f"{watch.revs} of {rows.revs}")
    return time.monotonic_ns()


def test_rows_are_timed_by_when_they_were_written(watch, rows):
    for _ in range(3):
        written = {number: rows.write(number) for number in PLAN.numbers}
        seen(watch, rows)
        for number, (before_ns, after_ns) in written.items():
            applied_ns = watch.applied_ns[number, rows.revs[number]]
            assert before_ns - SLACK_NS <= applied_ns <= after_ns + SLACK_NS


def test_no_step_of_the_databases_clock_hides_a_row_or_makes_it_quicker_or_later_than_it_was(watch, rows, stepping):
    for number in PLAN.numbers:
        rows.write(number)
    seen(watch, rows)
    for step_s in (3600.0, -7200.0, 2.0, -86_400.0 * 400, 86_400.0 * 400):
        written = {1: rows.write(1)}
        stepping.step(step_s)
        written |= {2: rows.write(2), 3: rows.write(3)}
        seen_ns = seen(watch, rows)
        for number, (before_ns, _) in written.items():
            applied_ns = watch.applied_ns[number, rows.revs[number]]
            assert before_ns - SLACK_NS <= applied_ns <= seen_ns, f"{number} at a step of {step_s:g} s"


def test_a_time_that_cannot_be_is_that_of_the_look(postgres):
    """The clock was stepped between the look at it and the look at the rows."""
    watch = DatabaseWatch(postgres, plan=PLAN, others=list)
    now_s = time.monotonic()
    watch._clock.note(1e9 + now_s, now_s, now_s)
    assert watch._written_s(1e9 + now_s - 2, now_s) == pytest.approx(now_s - 2)
    for ago_s in (-3600, 3600):
        assert watch._written_s(1e9 + now_s - ago_s, now_s) == now_s


def test_a_row_that_is_seen_again_keeps_its_time(postgres, rows, stepping):
    watch = DatabaseWatch(postgres, plan=PLAN, others=list)
    with contextlib.closing(connect(postgres, application="test")) as connection:
        connection.autocommit = True
        rows.write(1)
        watch._look(connection)
        first = dict(watch.applied_ns)
        assert list(first) == [(1, 1)]
        stepping.step(3600.0)
        watch._look(connection)
        assert watch.applied_ns == first


def test_a_lost_connection_is_made_again_and_no_row_is_missed(watch, rows):
    for number in PLAN.numbers:
        rows.write(number)
    seen(watch, rows)
    assert len(ended(rows)) == 1, "it has one connection"
    rows.write(2)
    seen(watch, rows)


def ended(rows: Rows) -> list[tuple]:
    return rows.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'dmpd-canary' AND datname = current_database()"
    )


def test_changes_of_others_are_timed_once(postgres, rows):
    session, looks = str(uuid.UUID(int=8)), []

    def others():
        looks.append(1)
        return [("R-1", session)]

    rows.insert("R-1", session, epoch=1, took_s=2.5)
    watch = DatabaseWatch(postgres, plan=PLAN, others=others, look_s=0.01)
    began_s = time.monotonic()
    watch.start()
    try:
        until(lambda: len(looks) > 3, "some looks")
    finally:
        watch.stop()
    ((at_s, took_s),) = watch.others_s
    assert began_s <= at_s <= time.monotonic()
    assert took_s == pytest.approx(2.5)


def test_what_is_open_and_what_is_read_is_of_this_run(postgres, rows):
    other = Plan(run=str(uuid.UUID(int=4)), seed=1, epoch=8, first=1, last=3, changes=60, started_ms=1)
    rows.insert(rae_of(2), session_of(other.run, 2), epoch=other.epoch)
    rows.execute("UPDATE device_session SET closed_at = now() WHERE rae = %s", rae_of(1))
    with contextlib.closing(connect(postgres, application="test")) as connection:
        assert still_open(connection, PLAN) == [rae_of(2), rae_of(3)]
        assert still_open(connection, other) == [rae_of(2)]
        found = read_rows(connection, PLAN)
        assert {number: (row.rev, row.closed) for number, row in found.items()} == {
            1: (0, True),
            2: (0, False),
            3: (0, False),
        }
        assert {number: row.rev for number, row in read_rows(connection, other).items()} == {2: 7}
