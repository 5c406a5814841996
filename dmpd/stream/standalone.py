"""A stream as a program of its own, for whoever has a handler and a topic: start-up checks, health, clear endings."""

import logging
from typing import Final

from confluent_kafka import KafkaException
from msgspec import Struct

from dmpd.runtime import exit_codes, kafka_admin
from dmpd.runtime.errors import BindError
from dmpd.runtime.health import HealthServer
from dmpd.runtime.kafka import KafkaRefusedError, ensure_reachable
from dmpd.runtime.kafka_admin import TopicSpec
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings, LogSettings
from dmpd.stream import run as stream
from dmpd.stream.control import Control
from dmpd.stream.fork_server import ForkServerError, HandlerImportError
from dmpd.stream.parent import StreamFailedError
from dmpd.stream.settings import StreamSettings
from dmpd.stream.status import StreamStatus
from dmpd.stream.worker_life import WorkerUndeadError

PROGRAM: Final = "stream"
_BROKERS_CHOICE: Final = -1
"""As partitions or replicas of a topic that is made: what the broker's configuration says."""

_log = logging.getLogger(__name__)


class StreamConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """File of ``dmpd stream-run``: for what its command line has no option."""

    kafka: KafkaSettings = KafkaSettings()
    stream: StreamSettings = StreamSettings()
    log: LogSettings = LogSettings()


class TopicMissingError(Exception):
    """There is nothing to process."""


def run(
    config: StreamConfig,
    *,
    handler: str,
    argument: bytes,
    health_bind: str | None = None,
    lifecycle: Lifecycle | None = None,
    reach_s: float = 10.0,
) -> int:
    """Process ``config.stream.topic`` until TERM, INT, or an error; blocks, main thread only. Returns the exit code.

    Makes the dead-letter topic if it is absent; never the topic itself.

    Args:
        config: Its log settings are in effect already (``runtime.log.setup``).
        handler: ``"module:function"``, a ``HandlerFactory``.
        argument: For the factory.
        health_bind: Where ``/healthz /readyz /metrics /status`` are served; None = nowhere.
        lifecycle: Whose stops are obeyed; its signals are installed here. None = one of its own.
        reach_s: How long Kafka has to answer at the start.

    Raises:
        UnavailableError: Kafka does not answer; says where.
    """
    lifecycle = lifecycle or Lifecycle(PROGRAM)
    lifecycle.install_signals()
    status, control = StreamStatus(), Control()
    health = None
    if health_bind is not None:
        try:
            health = HealthServer(health_bind, lifecycle, status.snapshot, actions=control.actions())
        except BindError as error:
            _log.error("health: %s", error)
            return exit_codes.CONFIG
        health.start()
        _log.info("health at %s", health.address)
    try:
        ensure_reachable(config.kafka, PROGRAM, reach_s)
        _ensure_topics(config)
        return stream.run(
            config.kafka,
            config.stream,
            handler=handler,
            handler_argument=argument,
            lifecycle=lifecycle,
            status=status,
            log=config.log,
            control=control,
        )
    except (HandlerImportError, KafkaRefusedError, TopicMissingError) as error:
        _log.error("%s", error)
        return exit_codes.CONFIG
    except (ForkServerError, StreamFailedError, WorkerUndeadError, KafkaException) as error:
        _log.exception("the stream cannot go on: %s", error)
        return exit_codes.INTERNAL
    finally:
        lifecycle.set_state("stopped")
        if health is not None:
            health.stop()


def _ensure_topics(config: StreamConfig) -> None:
    topic, dead = config.stream.topic, config.stream.dead_letter_topic
    known = kafka_admin.list_topics(config.kafka)
    if topic not in known:
        raise TopicMissingError(f"Kafka at {config.kafka.bootstrap_servers} has no topic {topic}")
    if dead not in known:
        spec = TopicSpec(name=dead, partitions=_BROKERS_CHOICE, replication_factor=_BROKERS_CHOICE)
        kafka_admin.create_topics(config.kafka, [spec])
        _log.info("made the topic for dead letters, %s", dead)
