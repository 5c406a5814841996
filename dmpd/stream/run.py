"""Process a Kafka topic with a handler: the one call that a program makes of the stream."""

import gc
import sys
from pathlib import Path
from typing import Final

from dmpd.runtime.kafka import Producer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings, LogSettings
from dmpd.stream import memory
from dmpd.stream.control import Control
from dmpd.stream.drain import StopWatch
from dmpd.stream.fork_server import ForkServer, Hello, resolve
from dmpd.stream.parent import Parent
from dmpd.stream.settings import StreamSettings
from dmpd.stream.source_limits import SourceOf, whole_key
from dmpd.stream.status import StreamStatus

_PRODUCER_QUEUE_KIBIBYTES: Final = 16 * 1024
_DEAD_LETTER_BYTES_MAX: Final = 8 << 20
"""Half the queue: one larger than the queue would find it full for ever. The topic's own bound is the broker's."""
_YOUNG_OBJECTS_MAX: Final = 50_000
"""Before the garbage collector looks. A turn makes thousands of objects and lets go of them, none in a cycle: with the
default of 700 each turn would be searched, most of them twice."""


def run(
    kafka: KafkaSettings,
    settings: StreamSettings,
    *,
    handler: str,
    lifecycle: Lifecycle,
    handler_argument: bytes = b"",
    status: StreamStatus | None = None,
    log: LogSettings | None = None,
    source_of: SourceOf | str = whole_key,
    control: Control | None = None,
) -> int:
    """Process ``settings.topic`` until a stop is asked for and what was fetched is done. Blocks; main thread only.

    Records of a partition are handled in order, at least once, by one worker process; partitions in parallel. An offset
    is committed after its record was handled or its dead letter delivered.

    Args:
        kafka: How to reach Kafka. The start-up check (``runtime.kafka.ensure_reachable``) is the caller's.
        settings: What to process and within which bounds.
        handler: ``"package.module:function"``, a ``HandlerFactory``; imported in the fork server, never here.
        lifecycle: Asked for stops (``install_signals`` is the caller's), told the state from ``ready`` to ``stopped``.
        handler_argument: Second argument of the factory, at most 64 KiB.
        status: Filled with the picture for ``/status`` while this runs.
        log: How workers log; the caller's own process is not touched.
        source_of: Names the source of a record by its key, for the limit of dead letters per source; runs here. Or
            its name, ``"package.module:function"``.
        control: Takes what operators ask; its ``actions`` go to a health server.

    Returns:
        ``exit_codes.OK``: all that was fetched is processed and committed, but what a rebalance took meanwhile: that
        the next owner processes, and a line says what it is. ``exit_codes.INTERNAL``: partitions were lost while
        draining, with a line of what of them goes back to Kafka.
        The process is ended instead (code 70, with a line of what goes back to Kafka) at a second stop or when
        ``settings.drain_timeout_s`` is over; with the code it would return, when only leaving the group takes too long.

    Raises:
        HandlerImportError: ``handler`` cannot be imported.
        ImportError, AttributeError, ValueError: ``source_of`` cannot.
        ForkServerError, StreamFailedError, WorkerUndeadError, KafkaException: It cannot go on; end the process, which
            ends the workers too. Nothing is lost: what is not committed is processed by the next owner.
    """
    settings = memory.fit(kafka, settings)
    source = resolve(source_of) if isinstance(source_of, str) else source_of
    server = ForkServer(
        Hello(
            handler=handler,
            argument=handler_argument,
            import_path=[entry or str(Path.cwd()) for entry in sys.path],
            log=log or LogSettings(),
            program=f"{lifecycle.program}-worker",
        )
    )
    # Before the handler is imported, which may take its time: a second stop ends that too.
    stop_watch = StopWatch(lifecycle, timeout_s=settings.drain_timeout_s)
    stop_watch.start()
    try:
        server.start()
        gc.set_threshold(_YOUNG_OBJECTS_MAX)
        producer = Producer(
            kafka,
            f"{lifecycle.program}-dead",
            queue_buffering_max_kbytes=_PRODUCER_QUEUE_KIBIBYTES,
            message_max_bytes=_DEAD_LETTER_BYTES_MAX,
        )
        parent = Parent(
            kafka,
            settings,
            server=server,
            producer=producer,
            lifecycle=lifecycle,
            status=status or StreamStatus(),
            stop_watch=stop_watch,
            source_of=source,
            control=control,
        )
        return parent.run()
    finally:
        stop_watch.end()
        server.stop()
