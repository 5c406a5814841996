"""A database whose wall clock can be stepped: ``clock_timestamp()`` and ``now()`` of every new connection are ours."""

import psycopg

_SCHEMA = """
CREATE SCHEMA stepping;
CREATE TABLE stepping.ahead (seconds float8 NOT NULL);
INSERT INTO stepping.ahead VALUES (0);
CREATE FUNCTION stepping.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + (SELECT seconds FROM stepping.ahead) * INTERVAL ''1 second''';
CREATE FUNCTION stepping.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.now() + (SELECT seconds FROM stepping.ahead) * INTERVAL ''1 second''';
GRANT USAGE ON SCHEMA stepping TO PUBLIC;
GRANT SELECT ON stepping.ahead TO PUBLIC
"""


class SteppingClock:
    """Of one database. Only those who connect behind ``__init__`` live by it: ``everybody`` ends older connections."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        with self._connected() as connection:
            connection.execute(_SCHEMA)
            (name,) = connection.execute("SELECT current_database()").fetchone()
            connection.execute(f'ALTER DATABASE "{name}" SET search_path = stepping, pg_catalog, public')

    def everybody(self) -> None:
        """Have all others connect anew."""
        with self._connected() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def step(self, seconds: float) -> None:
        """By so much, forward or back, at once."""
        with self._connected() as connection:
            connection.execute("UPDATE stepping.ahead SET seconds = seconds + %s", (seconds,))

    def remove(self) -> None:
        """Older connections go on as they are, and fail: have ``everybody`` connect anew before."""
        with self._connected() as connection:
            (name,) = connection.execute("SELECT current_database()").fetchone()
            connection.execute(f'ALTER DATABASE "{name}" RESET search_path')
            connection.execute("DROP SCHEMA stepping CASCADE")

    def _connected(self):
        return psycopg.connect(self._conninfo, autocommit=True)
