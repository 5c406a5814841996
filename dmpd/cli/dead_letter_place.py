"""Which dead-letter topic a command means: the cloud's, by its configuration, or that of any stream, by its options."""

import argparse
from pathlib import Path
from typing import Final, NamedTuple

from dmpd.cli.config import default_config, load_cloud_config
from dmpd.runtime.settings import KafkaSettings

_BYTES_MAX: Final = 8 << 20
"""As much as a stream's own producer of dead letters takes; the topic's bound is the broker's."""


class Place(NamedTuple):
    """Where letters lie, and the only topic that they may go back to."""

    kafka: KafkaSettings
    topic: str
    dead_letter_topic: str
    message_bytes_max: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = default_config(lab=True)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"default {default}; with --topic that of dmpd stream-run, default none",
    )
    parser.add_argument(
        "--topic", help="not the cloud's dead letters but those of this topic, as dmpd stream-run processes it"
    )
    parser.add_argument(
        "--dead-letter-topic", metavar="TOPIC", help="with --topic; default: its name with .dead behind it"
    )
    parser.add_argument(
        "--bootstrap", metavar="HOST:PORT", help="with --topic: Kafka; default 127.0.0.1:9092, or what --config says"
    )


def wrong_use(args: argparse.Namespace) -> str | None:
    """What does not go together, in one sentence."""
    if args.topic is None and (args.dead_letter_topic is not None or args.bootstrap is not None):
        return "--dead-letter-topic and --bootstrap go with --topic"
    return None


def place_of(args: argparse.Namespace) -> Place:
    """Raises ``ConfigError``."""
    if args.topic is None:
        config = load_cloud_config(args if args.config is not None else _with_default(args))
        topics = config.topics
        return Place(config.kafka, topics.info, topics.info_dead, topics.max_message_bytes)
    from dmpd.cli.stream_run import config_of  # noqa: PLC0415 - the stream's libraries, only where they are asked for

    found = config_of(argparse.Namespace(**vars(args), group="dmpctl"))
    return Place(found.kafka, found.stream.topic, found.stream.dead_letter_topic, _BYTES_MAX)


def _with_default(args: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(**(vars(args) | {"config": default_config(lab=True)}))
