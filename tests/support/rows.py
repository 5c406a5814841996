"""The Cloud Registry's handler on a database of the test: records in, rows of the model's own type out."""

import contextlib
import time

import msgspec

from dmpd.cloud_registry import migrate, reader
from dmpd.cloud_registry.daemon import worker_argument
from dmpd.cloud_registry.handler import CloudRegistryHandler
from dmpd.cloud_registry.settings import CloudRegistrySettings, WorkerSettings
from dmpd.model.codec import encode
from dmpd.model.topics import info_topic
from dmpd.runtime.database import connect
from dmpd.stream.handler import Record

TIMESTAMP_MS = 1_764_043_300_000


class OutputTwin:
    """Remembers what the handler says."""

    def __init__(self):
        self.refused = {}
        self.emitted = []
        self.waits = 0
        self.said = []
        """Details of what it waits for."""
        self.halts = 0

    def invalid(self, record, reason, detail=""):
        assert record.offset not in self.refused, "called invalid twice in one call"
        self.refused[record.offset] = (reason, detail)

    def emit(self, topic, key, value):
        self.emitted.append((topic, key, value))

    def waiting_sink(self, detail="", *, halted=False):
        self.waits += 1
        self.said.append(detail)
        self.halts += halted


def record_of(message, offset, headers=()):
    return Record(offset, TIMESTAMP_MS, info_topic(message.rae, message.session).encode(), encode(message), headers)


def make_handler(database, *, partition=0, sleep=time.sleep, **settings):
    argument = worker_argument(CloudRegistrySettings(**settings), database, cmd_topic="dmp.cmd")
    return CloudRegistryHandler(partition, msgspec.json.decode(argument, type=WorkerSettings), sleep=sleep)


def handle_all(database, batches, **settings):
    """All of ``batches`` by one handler, which refuses nothing; a process of its own may run it."""
    output = OutputTwin()
    with contextlib.closing(make_handler(database, **settings)) as handler:
        for records in batches:
            handler.handle(records, output)
    assert output.refused == {}


def always_by_full_rules(monkeypatch):
    """Have no record take the straight way: what is locked, read and judged is what this test is about."""
    monkeypatch.setattr("dmpd.cloud_registry.straight_way.scan", lambda records, *_: ({}, list(records)))


@contextlib.contextmanager
def migrated(database):
    """A connection in autocommit to ``database``, which then has the tables."""
    with contextlib.closing(connect(database, application="test")) as connection:
        connection.autocommit = True
        migrate.migrate(connection)
        yield connection


def rows_of(connection, rae=None):
    """All device rows (of one RAE), complete, by session."""
    asked = "SELECT rae, session::text FROM device_session WHERE %(rae)s::text IS NULL OR rae = %(rae)s"
    keys = connection.execute(asked, {"rae": rae}).fetchall()
    found = reader.with_content(connection, reader.read_rows(connection, keys))
    return {session: row for (_, session), row in found.items()}


def events_of(connection, rae):
    asked = "SELECT session, code, detail FROM device_event WHERE rae = %s ORDER BY at, seq, code"
    return connection.execute(asked, (rae,)).fetchall()
