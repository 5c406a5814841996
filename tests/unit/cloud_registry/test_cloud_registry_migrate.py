"""The schema comes to be once, whoever asks, and is not taken for another one."""

import contextlib
import threading
from importlib.resources import files

import psycopg
import pytest

from dmpd.cloud_registry import migrate
from dmpd.runtime.database import connect
from tests.support import sql_faults
from tests.support.services import only_postgresql

pytestmark = pytest.mark.services


@pytest.fixture
def connection(postgres):
    with contextlib.closing(connect(postgres, application="test")) as connection:
        connection.autocommit = True
        yield connection


def tables(connection):
    found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in found}


def test_creates_the_tables_once(connection):
    assert migrate.migrate(connection) == [step.name for step in migrate.steps()]
    assert {"rae", "device_session", "device_interface", "device_attribute", "device_event"} < tables(connection)
    assert migrate.migrate(connection) == []
    migrate.check(connection)


def test_several_at_once_apply_each_step_once(postgres):
    applied, failures = [], []
    start = threading.Barrier(6)

    def work():
        with contextlib.closing(connect(postgres, application="test")) as connection:
            connection.autocommit = True
            start.wait(20)
            try:
                applied.extend(migrate.migrate(connection))
            except psycopg.Error as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert applied == [step.name for step in migrate.steps()]


def test_refuses_a_schema_that_is_not_its_own(connection):
    with pytest.raises(migrate.SchemaError, match="run 'dmpd migrate' first"):
        migrate.check(connection)
    migrate.migrate(connection)
    connection.execute("UPDATE schema_version SET version = version - 1")
    with pytest.raises(migrate.SchemaError, match="run 'dmpd migrate' first"):
        migrate.check(connection)
    connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(migrate.SchemaError, match="install a later dmpd"):
        migrate.check(connection)
    with pytest.raises(migrate.SchemaError, match="99"):
        migrate.migrate(connection)


def test_a_role_that_may_not_look_is_told_what_it_lacks(postgres, connection):
    migrate.migrate(connection)
    connection.execute("CREATE ROLE nobody_special LOGIN")
    try:
        as_nobody = type(postgres)(conninfo=f"{postgres.conninfo} user=nobody_special")
        with contextlib.closing(connect(as_nobody, application="test")) as other:
            other.autocommit = True
            with pytest.raises(migrate.SchemaError, match=r"schema_version: give this role what schema/roles.sql says"):
                migrate.check(other)
    finally:
        connection.execute("DROP ROLE nobody_special")


def test_roles_get_what_they_need_and_no_more(connection):
    migrate.migrate(connection)
    with contextlib.ExitStack() as cleanup:
        for role in ("dmpd_registry", "dmpd_read"):
            connection.execute(f"CREATE ROLE {role}")
            cleanup.callback(connection.execute, f"DROP ROLE {role}")
            cleanup.callback(connection.execute, f"DROP OWNED BY {role}")
        script = files("dmpd.cloud_registry").joinpath("schema", "roles.sql").read_text()
        for statement in migrate.statements(script):
            connection.execute(statement)
        for role, insert in (("dmpd_registry", True), ("dmpd_read", False)):
            asked = "SELECT has_table_privilege(%s, %s, %s)"
            for table in [one for one in tables(connection) if not one.startswith("access_")]:  # see roles_access.sql
                assert connection.execute(asked, (role, table, "SELECT")).fetchone() == (True,), table
                may_insert = insert and table != "schema_version"
                assert connection.execute(asked, (role, table, "INSERT")).fetchone() == (may_insert,), table


def test_who_comes_second_waits_and_finds_nothing_to_do(postgres, connection):
    only_postgresql()
    connection.execute(migrate._VERSION_TABLE)
    connection.execute("INSERT INTO schema_version VALUES ('dmpd', 0)")
    applied = []

    def work():
        with contextlib.closing(connect(postgres, application="dmpd-cloud-registry-migrate")) as other:
            other.autocommit = True
            applied.append(migrate.migrate(other))

    thread = threading.Thread(target=work)
    with connection.transaction():
        connection.execute("SELECT version FROM schema_version WHERE product = 'dmpd' FOR UPDATE")
        thread.start()
        with contextlib.closing(connect(postgres, application="test")) as watch:
            watch.autocommit = True
            sql_faults.wait_for_waiters(watch)
        connection.execute("UPDATE schema_version SET version = %s", (len(migrate.steps()),))
    thread.join(60)
    assert applied == [[]]


def test_a_step_takes_its_time(connection, monkeypatch):
    """An index over millions of rows takes longer than any statement of a daemon may."""
    monkeypatch.setattr(migrate, "steps", lambda: [migrate.Step(1, "slow", "SELECT pg_sleep(1.5)")])
    connection.execute("SET statement_timeout = 500")
    connection.answer_timeout_s = 0.5
    assert migrate.migrate(connection) == ["slow"]
    assert connection.execute("SHOW statement_timeout").fetchone() == ("500ms",)
