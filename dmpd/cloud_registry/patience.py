"""Work on the database, done in the end: one worker's connection, and trying again for as long as that makes sense.

The database may be away for any time: the same work is tried for ever, its ring fills meanwhile and the partition is
paused. Only what ``trial`` blames on the data comes back undone.
"""

import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg

from dmpd.cloud_registry.settings import WorkerSettings
from dmpd.cloud_registry.sink import RowAppearedError, look_up_by_keys
from dmpd.cloud_registry.sqlstate import Meaning, meaning_of, sentence
from dmpd.cloud_registry.statements import PROBE
from dmpd.cloud_registry.trial import Trial
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.database import Connection, DatabaseUnreachableError, connect
from dmpd.runtime.log import log_fields
from dmpd.stream.handler import Output

_T = TypeVar("_T")

_SAY_EVERY_S: Final = 5.0
"""While nothing is released, whatever the reason: the parent takes a silent worker for stuck."""

_PASSING: Final[frozenset[Meaning]] = frozenset({"away", "lost", "read_only", "conflict", "slow"})
"""Why a probe failed: not for its own sake."""

_log = logging.getLogger(__name__)


class DataRefusedError(Exception):
    """The data of this work is to blame: take it apart, or, of a single record, give it up. Says why."""


class PatientDatabase:
    """Owns one connection, made when it is needed and made anew when it fails. All calls block."""

    def __init__(
        self, partition: int, settings: WorkerSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._sleep = sleep
        self._connection: Connection | None = None
        self.connections_made = 0
        """Whoever remembers what the database said forgets it when this changes: it may be another one now."""
        self._output: Output | None = None
        self._said_at_s = 0.0
        self._backoff = Backoff(settings.retry_first_s, settings.retry_max_s, random=random.random)

    def until_done(self, work: Callable[[Connection], _T], output: Output, *, is_single: bool = False) -> _T:
        """Do ``work`` until it succeeds; ``output`` is told of each time that it does not.

        Args:
            work: One transaction, or reads. It may be called any number of times.
            output: Told that this worker waits for its sink.
            is_single: The work is one record's, and cannot be taken apart.

        Raises:
            DataRefusedError: The data is to blame; if ``is_single``, a write of something else has succeeded since.
        """
        trial = Trial(is_single=is_single)
        if output is not self._output:  # another batch: what was said of the last one is over
            self._output, self._said_at_s = output, time.monotonic()
        while True:
            try:
                done = work(self._connected())
            except (psycopg.Error, DatabaseUnreachableError, RowAppearedError) as error:
                self._failed(error, trial, output)
            else:
                if self._backoff.attempts:
                    _log.info("the database takes rows again", extra=log_fields(partition=self._partition))
                    self._backoff.reset()
                return done

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _failed(self, error: Exception, trial: Trial, output: Output) -> None:
        """Wait as long as ``error`` asks for. Raises ``DataRefusedError``."""
        meaning = meaning_of(error)
        step = trial.failed(meaning)
        if step == "probe":
            output.waiting_sink(sentence(error))  # the answer that did not come took long, a connection may too
            step = trial.probed() if self._probe(output) else "wait"
        if step == "blame":
            raise DataRefusedError(sentence(error)) from error
        if step == "halt":
            self._halt(error, output)
        elif step != "again":
            self._wait(error, meaning, output, anew=step == "reconnect")

    def _probe(self, output: Output) -> bool:
        """Whether the database takes a write that has nothing to do with the work. Waits for a database that is away.

        The work is not tried before: what if it is what crashes the server, again and again?
        """
        while True:
            self._drop_if_broken()
            try:
                self._connected().execute(PROBE, (self._partition,))
            except (psycopg.Error, DatabaseUnreachableError) as error:
                meaning = meaning_of(error)
                if meaning not in _PASSING:
                    fields = log_fields(partition=self._partition)
                    _log.error("database: the probe too: %s", sentence(error), extra=fields)
                    return False
                self._wait(error, meaning, output, anew=meaning == "read_only")
            else:
                return True

    def _wait(self, error: Exception, meaning: Meaning, output: Output, *, anew: bool) -> None:
        self._drop_if_broken()
        if anew:
            self.close()
        output.waiting_sink(sentence(error))
        delay_s = self._backoff.next_s()
        fields = log_fields(partition=self._partition, attempt=self._backoff.attempts)
        level = logging.ERROR if meaning == "doubtful" else logging.WARNING
        _log.log(level, "database: %s; again in %.2f s", sentence(error), delay_s, extra=fields)
        self._sleep(delay_s)

    def _halt(self, error: Exception, output: Output) -> None:
        """A privilege, a table or a column is missing. The new connection sees what a person did about it."""
        self.close()
        left_s = self._settings.halt_retry_s
        fields = log_fields(partition=self._partition)
        _log.error("database: %s; halted, again in %.0f s", sentence(error), left_s, extra=fields)
        self._backoff.next_s()  # so that its end is said
        while left_s > 0:
            output.waiting_sink(sentence(error), halted=True)
            self._sleep(min(left_s, _SAY_EVERY_S))
            left_s -= _SAY_EVERY_S

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = connect(self._settings.database, application=f"dmpd-cloud-registry-{self._partition}")
            connection.autocommit = True  # transactions are opened where they begin, and only there
            look_up_by_keys(connection)
            connection.on_answer = self._say_if_slow
            self._connection = connection
            self.connections_made += 1
        return self._connection

    def _say_if_slow(self) -> None:
        """In a long transaction, or the many of a wide batch: it goes on, so the parent must not take it for stuck."""
        now_s = time.monotonic()
        if self._output is not None and now_s - self._said_at_s > _SAY_EVERY_S:
            self._said_at_s = now_s
            self._output.waiting_sink("the database is slow")

    def _drop_if_broken(self) -> None:
        if self._connection is not None and (self._connection.broken or self._connection.closed):
            with contextlib.suppress(psycopg.Error):
                self.close()
