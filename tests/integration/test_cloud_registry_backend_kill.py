"""``kill -9`` of the backend in mid-transaction: PostgreSQL resets itself, the batch is written once it is back."""

import contextlib
import os
import signal

import pytest
from msgspec import Raw

from dmpd.cloud_registry import sink
from dmpd.lab.postgresql import PostgreSQL
from dmpd.model.record import DeviceRecord, RecordPatch
from tests.support.messages import SESSION, change, checkpoint
from tests.support.rows import OutputTwin, make_handler, migrated, record_of, rows_of
from tests.support.services import PostgreSQLService, public_folder, start

pytestmark = pytest.mark.services


@contextlib.contextmanager
def durable_database():
    """Not the session's cluster: that one has synchronous_commit off, so a reset takes back what it confirmed."""
    with public_folder() as folder:
        cluster = PostgreSQL(folder / "postgresql", durable=True)
        with start(cluster) as process, PostgreSQLService(process, cluster).database() as settings:
            yield settings


def test_a_backend_killed_in_mid_transaction_costs_time_only(monkeypatch):
    write_children = sink._write_children
    killed = []

    def killing(used, pairs):
        write_children(used, pairs)
        if len(killed) == 1:
            return
        killed.append(used.info.backend_pid)
        os.kill(used.info.backend_pid, signal.SIGKILL)

    with durable_database() as settings:
        with migrated(settings), contextlib.closing(make_handler(settings)) as handler:
            output = OutputTwin()
            handler.handle([record_of(checkpoint(1, DeviceRecord(attributes={"a": Raw(b"1")})), 0)], output)
            monkeypatch.setattr(sink, "_write_children", killing)
            patch = RecordPatch(attributes={"a": Raw(b"2"), "b": Raw(b"3")})
            handler.handle([record_of(change(2, patch=patch), 1)], output)
        with migrated(settings) as connection:
            row = rows_of(connection)[SESSION]
    assert len(killed) == 1
    assert output.refused == {}
    assert output.waits >= 1
    assert (row.rev, row.stale, row.record.attributes) == (2, False, {"a": Raw(b"2"), "b": Raw(b"3")})
