"""``dmpd cloud-registry``: start-up checks, health, and the stream's parent. The work itself is in ``handler``."""

import contextlib
import logging
import select
from collections.abc import Callable
from typing import Any, Final

import msgspec

from dmpd.cloud_registry import durability, migrate
from dmpd.cloud_registry.reconciler import Reconciler
from dmpd.cloud_registry.retention import Retention
from dmpd.cloud_registry.settings import CloudRegistrySettings, WorkerSettings
from dmpd.cloud_registry.source import source_of
from dmpd.runtime import exit_codes
from dmpd.runtime.database import DatabaseError, DatabaseUnreachableError, connect, describe
from dmpd.runtime.health import HealthServer
from dmpd.runtime.kafka import KafkaRefusedError, KafkaUnreachableError, Producer, ensure_reachable
from dmpd.runtime.kafka_admin import list_end_offsets
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings, LogSettings, TopicSettings
from dmpd.stream import run as stream
from dmpd.stream.control import Control
from dmpd.stream.status import StreamStatus

PROGRAM: Final = "cloud-registry"
HANDLER: Final = "dmpd.cloud_registry.handler:make"
_REACH_S: Final = 5.0
_RETRY_S: Final = 1.0

_log = logging.getLogger(__name__)


def run(
    settings: CloudRegistrySettings,
    *,
    kafka: KafkaSettings,
    topics: TopicSettings,
    database: DatabaseSettings,
    log: LogSettings,
    lifecycle: Lifecycle,
) -> int:
    """Run one instance until a signal ends it; blocks, main thread only. Returns the exit code.

    Waits for Kafka and the database as long as they are away; refuses a schema that is not this program's.
    """
    lifecycle.install_signals()
    status, control = StreamStatus(), Control()
    reconciler = _reconciler(settings, kafka=kafka, topics=topics, database=database, status=status)
    retention = Retention(
        settings.retention, connect=lambda: connect(database, application=f"dmpd-{PROGRAM}-retention")
    )
    health = HealthServer(
        settings.health_bind, lifecycle, lambda: _status(lifecycle, status, reconciler), actions=control.actions()
    )
    health.start()
    try:
        if not _wait_for(lambda: ensure_reachable(kafka, PROGRAM, _REACH_S), lifecycle):
            return exit_codes.OK
        if not _wait_for(lambda: _check_schema(database), lifecycle):
            return exit_codes.OK
        reconciler.start()
        retention.start()
        return stream.run(
            kafka,
            settings.stream,
            handler=HANDLER,
            handler_argument=worker_argument(settings, database, cmd_topic=topics.cmd),
            lifecycle=lifecycle,
            status=status,
            log=log,
            source_of=source_of,
            control=control,
        )
    except (KafkaRefusedError, migrate.SchemaError) as error:
        _log.error("%s", error)
        return exit_codes.CONFIG
    finally:
        lifecycle.set_state("stopped")
        reconciler.stop()
        retention.stop()
        health.stop()


def worker_argument(settings: CloudRegistrySettings, database: DatabaseSettings, *, cmd_topic: str) -> bytes:
    """The ``WorkerSettings`` that ``handler.make`` takes."""
    return msgspec.json.encode(
        WorkerSettings(
            database=database,
            cmd_topic=cmd_topic,
            transaction_sessions_max=settings.transaction_sessions_max,
            transaction_bytes_max=settings.transaction_bytes_max,
            retry_first_s=settings.retry_first_s,
            retry_max_s=settings.retry_max_s,
            halt_retry_s=settings.halt_retry_s,
        )
    )


def _reconciler(
    settings: CloudRegistrySettings,
    *,
    kafka: KafkaSettings,
    topics: TopicSettings,
    database: DatabaseSettings,
    status: StreamStatus,
) -> Reconciler:
    return Reconciler(
        settings.reconcile,
        connect=lambda: connect(database, application=f"dmpd-{PROGRAM}-reconciler"),
        make_producer=lambda: Producer(kafka, f"{PROGRAM}-requests"),
        topic=topics.cmd,
        partitions=lambda: len(list_end_offsets(kafka, topics.cmd)),
        owned=lambda: [int(number) for number in status.snapshot()["partitions"]],
    )


def _status(lifecycle: Lifecycle, status: StreamStatus, reconciler: Reconciler) -> dict[str, Any]:
    said = {"state": lifecycle.state, "reason": lifecycle.reason, **status.snapshot()}
    return said | {"reconciliation": reconciler.status()}


def _check_schema(database: DatabaseSettings) -> None:
    with contextlib.closing(connect(database, application=f"dmpd-{PROGRAM}")) as connection:
        connection.autocommit = True
        try:
            migrate.check(connection)
            durability.warn(connection)
        except DatabaseError as error:  # it went away, or does not work yet
            raise DatabaseUnreachableError(f"{describe(database)}: {str(error).strip()}") from error


def _wait_for(probe: Callable[[], None], lifecycle: Lifecycle) -> bool:
    """Repeat ``probe`` until its server answers; False if a stop was asked for meanwhile."""
    while not lifecycle.stop_requested:
        try:
            probe()
        except (KafkaUnreachableError, DatabaseUnreachableError) as error:
            lifecycle.set_state("degraded", str(error))
            if select.select([lifecycle.wakeup_fd], [], [], _RETRY_S)[0]:
                lifecycle.clear_wakeup()
        else:
            return True
    return False
