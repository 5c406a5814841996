"""Asks RAEs for checkpoints of stale rows: a thread of the Cloud Registry's parent, beside the stream.

It also sees whether the database went back (``marks``): then rows are wrong that nothing doubts, and people are told.

Reads the stale rows of the partitions that this instance owns, and produces one request each to the topic of requests;
``reconcile`` decides which. Holds nothing up: database or Kafka may be away, then rows stay stale for longer. A request
that is lost is repeated by its backoff; after a restart everything stale is asked once more.
"""

import contextlib
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from dmpd.cloud_registry import metrics, stale
from dmpd.cloud_registry.marks import Marks
from dmpd.cloud_registry.reconcile import Reconciliation, StaleRow
from dmpd.cloud_registry.settings import ReconcileSettings
from dmpd.model.requests import REGISTRY, request, request_record
from dmpd.model.topics import partition_of
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.database import Connection, DatabaseError
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka import UNKNOWN_PARTITION, ProducerQueueFullError, RecordProducer

_OUTSTANDING_MAX: Final = 200
"""Requests that Kafka has not taken: while there are so many nobody is asked, or all would come at once, too late."""
_COUNT_EVERY_S: Final = 10.0
_PAGES_MAX: Final = 20
"""In one round."""
_FAILURE_FIRST_S: Final = 1.0
_FAILURE_MAX_S: Final = 30.0
_JOIN_S: Final = 2.0

_log = logging.getLogger(__name__)


class Reconciler:
    """``start`` and ``stop`` once each. Everything else happens on its own thread."""

    def __init__(
        self,
        settings: ReconcileSettings,
        *,
        connect: Callable[[], Connection],
        make_producer: Callable[[], RecordProducer],
        topic: str,
        partitions: Callable[[], int],
        owned: Callable[[], Collection[int]],
    ) -> None:
        """Nothing blocks here.

        Args:
            settings: Rates and waits.
            connect: Makes a connection; raises ``DatabaseUnreachableError``.
            make_producer: Makes a producer, at first need; raises ``KafkaRefusedError``.
            topic: Of requests.
            partitions: How many partitions ``topic`` has; asks Kafka, raises ``KafkaUnreachableError``.
            owned: The partitions of the feed that are this instance's now.
        """
        self._settings = settings
        self._connect = connect
        self._make_producer = make_producer
        self._topic = topic
        self._count_partitions = partitions
        self._owned = owned
        self._state = Reconciliation(
            per_s=settings.requests_per_s,
            first_s=settings.backoff_first_s,
            max_s=settings.backoff_max_s,
            random=random.random,
        )
        self._connection: Connection | None = None
        self._producer: RecordProducer | None = None
        self._partitions: int | None = None
        self._outstanding = 0
        self._stale: int | None = None
        self._count_at_s = 0.0
        self._problem: str | None = None
        self._marks = Marks()
        self._backoff = Backoff(_FAILURE_FIRST_S, _FAILURE_MAX_S, random=random.random)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; waits up to 2 s (a database that hangs does not hold up the end). Also without ``start``."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def status(self) -> dict[str, Any]:
        """For ``/status``: stale rows (null = not counted yet), the last whole pass, and what is wrong. Any thread."""
        return {
            "stale": self._stale,
            "last_pass": msgspec.structs.asdict(self._state.backlog),
            "passes": self._state.passes,
            "problem": self._problem,
        }

    def _run(self) -> None:
        wait_s = self._settings.interval_s
        while not self._stop.wait(wait_s):
            wait_s = self._settings.interval_s
            try:
                self._round()
            except (DatabaseError, UnavailableError) as error:
                wait_s = self._failed(error)
            except Exception as error:  # must not end silently: stale rows would stay so for ever
                _log.exception("reconciliation failed")
                wait_s = self._failed(error)
            else:
                self._backoff.reset()
                self._problem = None
        self._close()

    def _failed(self, error: Exception) -> float:
        """Count and say it; returns for how long to wait."""
        metrics.RECONCILE_FAILURES.inc()
        sentence = str(error).strip().split("\n", 1)[0]
        if sentence != self._problem:
            _log.warning("stale rows wait: %s", sentence)
        self._problem = sentence
        self._disconnect()
        return self._backoff.next_s()

    def _round(self) -> None:
        """Go on with the pass: up to its end, the bucket's, or ``_PAGES_MAX`` pages."""
        if self._producer is not None:
            self._producer.poll(0)
        owned = sorted(self._owned())
        if not owned or self._outstanding >= _OUTSTANDING_MAX:
            return
        if self._connection is None:
            self._connection = self._connect()
            self._connection.autocommit = True
        self._look_back(self._connection)
        self._count(self._connection, owned)
        for _ in range(_PAGES_MAX):
            passes, before = self._state.passes, self._state.cursor
            page = stale.read_page(
                self._connection, owned, after=before, rows_max=self._state.page_rows, now=datetime.now(UTC)
            )
            if page:
                producer, partitions = self._ready()
                for row in self._state.take(page, time.monotonic()):
                    self._ask(row, producer, partitions)
            else:
                list(self._state.take(page, time.monotonic()))  # the end of the pass
            if self._state.passes != passes or self._state.cursor == before or self._stop.is_set():
                break
        if self._producer is not None:
            self._producer.poll(0)
        metrics.STALE_UNREACHABLE.set(self._state.backlog.unreachable)

    def _look_back(self, connection: Connection) -> None:
        if self._marks.went_back(connection):
            metrics.REWINDS.inc()
            _log.error(
                "the database is older than what it had confirmed: restored, or a failover that lost something;"
                " rows may be old that nothing doubts, so: dmpctl resync --all"
            )

    def _count(self, connection: Connection, owned: list[int]) -> None:
        if time.monotonic() >= self._count_at_s:
            self._stale = stale.count(connection, owned)
            self._count_at_s = time.monotonic() + _COUNT_EVERY_S
            metrics.STALE.set(self._stale)

    def _ready(self) -> tuple[RecordProducer, int]:
        """A producer that works, and how many partitions the topic of requests has."""
        if self._producer is not None and self._producer.fatal is not None:
            _log.error("the producer of requests failed, making another: %s", self._producer.fatal)
            self._producer.close()
            self._producer, self._outstanding = None, 0
        if self._producer is None:
            self._producer = self._make_producer()
        if self._partitions is None:
            self._partitions = self._count_partitions()
        return self._producer, self._partitions

    def _ask(self, row: StaleRow, producer: RecordProducer, partitions: int) -> None:
        said = request_record(
            request("checkpoint", rae=row.rae, session=row.session, request_id=uuid.uuid4().hex, at=datetime.now(UTC)),
            REGISTRY,
        )
        self._outstanding += 1
        try:
            producer.produce(
                self._topic,
                key=said.key,
                value=said.value,
                headers=said.headers,
                partition=partition_of(row.rae, partitions),
                on_delivery=self._delivered,
            )
        except ProducerQueueFullError:  # Kafka has been away for long; this session is asked again after its backoff
            self._delivered("the producer's queue is full")

    def _delivered(self, refusal: str | None) -> None:
        self._outstanding -= 1
        if refusal is None:
            metrics.CHECKPOINT_REQUESTS.inc()
            return
        metrics.REQUEST_FAILURES.inc()
        _log.warning("a request for a checkpoint was not taken: %s", refusal)
        if refusal == UNKNOWN_PARTITION:  # the topic was made anew, with fewer
            self._partitions = None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DatabaseError):
                connection.close()

    def _close(self) -> None:
        self._disconnect()
        if self._producer is not None:
            self._producer.flush(1.0)
            self._producer.close()
