"""What the stream runs in each worker: records of one partition in, rows out.

The database may be away for any time: the batch is tried again for ever, and meanwhile the ring fills and the partition
is paused. Only an error that names the data as its cause takes the batch apart, down to the one record to blame.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import psycopg

from dmpd.cloud_registry import sink
from dmpd.cloud_registry.asks import Asks, Teller
from dmpd.cloud_registry.gather import Unit, chunks, gather
from dmpd.cloud_registry.refusal import meaning_of, sentence
from dmpd.cloud_registry.settings import WorkerSettings
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.database import Connection, DatabaseUnreachableError, connect
from dmpd.runtime.log import log_fields
from dmpd.stream.handler import Handler, Output, Record

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class _DataRefusedError(Exception):
    """The database says that this data cannot be stored."""


def make(partition: int, argument: bytes) -> Handler:
    """The stream's factory: ``argument`` is a ``WorkerSettings`` as JSON. Connects at the first batch, not here."""
    return CloudRegistryHandler(partition, msgspec.json.decode(argument, type=WorkerSettings))


class CloudRegistryHandler:
    """Owns one connection to the database, made when it is needed and made anew when it fails."""

    def __init__(
        self, partition: int, settings: WorkerSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._sleep = sleep
        self._connection: Connection | None = None
        self._backoff = Backoff(settings.retry_first_s, settings.retry_max_s, random=random.random)
        self._teller = Teller(random=random.random, new_id=lambda: uuid.uuid4().hex)

    def handle(self, records: Sequence[Record], output: Output) -> None:
        """See ``dmpd.stream.handler.Handler``. On return every record is committed in the database, or invalid."""
        refused: set[int] = set()

        def refuse(record: Record, reason: str, detail: str) -> None:
            if record.offset not in refused:  # a roster stands in several units
                refused.add(record.offset)
                output.invalid(record, reason, detail)

        units = gather(
            records,
            refuse,
            lambda rosters: self._until_done(lambda connection: sink.find_phantoms(connection, rosters), output),
        )
        asks = Asks()
        units = self._until_done(lambda connection: sink.leave_out_old(connection, units, asks), output)
        settings = self._settings
        for chunk in chunks(
            units, sessions_max=settings.transaction_sessions_max, bytes_max=settings.transaction_bytes_max
        ):
            self._write(chunk, refuse, output, asks)
        for said in self._teller.due(asks, now_s=time.monotonic(), at=datetime.now(UTC)):
            output.emit(settings.cmd_topic, said.key, said.value)

    def close(self) -> None:
        self._disconnect()

    def _write(
        self, units: Sequence[Unit], refuse: Callable[[Record, str, str], None], output: Output, asks: Asks
    ) -> None:
        """Write all of ``units``; what the database refuses is halved, by units and then by steps, in order."""
        try:
            self._until_done(
                lambda connection: sink.write(connection, units, partition=self._partition, asks=asks), output
            )
        except _DataRefusedError as error:
            if len(units) > 1:
                middle = len(units) // 2
                self._write(units[:middle], refuse, output, asks)
                self._write(units[middle:], refuse, output, asks)
            elif len(units[0].steps) > 1:
                for half in units[0].halves():
                    self._write([half], refuse, output, asks)
            else:
                refuse(units[0].steps[0].record, "refused", str(error))

    def _until_done(self, work: Callable[[Connection], _T], output: Output) -> _T:
        """Do ``work`` until it succeeds, however long the database is away.

        Raises:
            _DataRefusedError: The data is to blame.
        """
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                done = work(self._connection)
            except (psycopg.Error, DatabaseUnreachableError, sink.RowAppearedError) as error:
                meaning = meaning_of(error)
                if meaning == "data":
                    raise _DataRefusedError(sentence(error)) from error
                output.waiting_sink()
                if meaning != "again":
                    self._pause(error, unknown=meaning == "unknown")
            else:
                if self._backoff.attempts:
                    _log.info("the database takes rows again", extra=log_fields(partition=self._partition))
                    self._backoff.reset()
                return done

    def _pause(self, error: Exception, *, unknown: bool) -> None:
        # What is not understood (a read-only standby, a stale plan) may be a matter of this one connection.
        if self._connection is not None and (unknown or self._connection.broken or self._connection.closed):
            self._disconnect()
        delay_s = self._backoff.next_s()
        fields = log_fields(partition=self._partition, attempt=self._backoff.attempts)
        level = logging.ERROR if unknown else logging.WARNING
        _log.log(level, "database: %s; again in %.2f s", sentence(error), delay_s, extra=fields)
        self._sleep(delay_s)

    def _connect(self) -> Connection:
        connection = connect(self._settings.database, application=f"dmpd-cloud-registry-{self._partition}")
        connection.autocommit = True  # transactions are opened where they begin, and only there
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
