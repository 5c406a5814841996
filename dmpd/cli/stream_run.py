"""``dmpd stream-run``: process a Kafka topic with a handler of your own, in order, one worker per partition.

HANDLER is ``module:function``, looked for in the current directory first; see ``dmpd/stream/handler.py`` for what it
is. Records that it gives up, or that kill it, go to the dead-letter topic, which is made if it is absent. Ctrl-C or
TERM ends it when everything fetched is handled and committed; a second one at once. HUP has it do so and begin anew
with the changed --config.

Exit codes: 0 drained after TERM or Ctrl-C, 64 wrong usage, 69 Kafka does not answer, 70 an error of ours (start it
again), 78 the handler cannot be imported, there is no such topic, nobody can listen at --health (or another does), or
the configuration or Kafka's credentials are wrong.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dmpd.cli.arguments import bind
from dmpd.runtime import daemon_process, log
from dmpd.runtime.config import ConfigError, load
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.stream import standalone
from dmpd.stream.standalone import StreamConfig

HELP: Final = "process a Kafka topic with a handler of your own"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("handler", metavar="HANDLER", help="module:function that makes a handler")
    parser.add_argument("--topic", required=True, help="what to process")
    parser.add_argument("--group", required=True, help="consumer group; all who give the same share the partitions")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="Kafka; default 127.0.0.1:9092, or what --config says")
    parser.add_argument("--dead-letter-topic", metavar="TOPIC", help="default: the topic's name with .dead behind it")
    parser.add_argument("--argument", default="", metavar="TEXT", help="given to the function, as bytes")
    parser.add_argument(
        "--health",
        type=bind,
        metavar="BIND",
        help="serve /healthz /readyz /metrics /status and dmpctl there: host:port or unix:/path",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML with sections kafka, stream, log: credentials, bounds"
    )


def run(args: argparse.Namespace) -> int:
    sys.path.insert(0, str(Path.cwd()))  # a console script's own path begins with the folder it is installed in
    config = config_of(args)
    log.setup(config.log, standalone.PROGRAM)

    def serve(lifecycle: Lifecycle) -> int:
        return standalone.run(
            config,
            handler=args.handler,
            argument=args.argument.encode(),
            health_bind=args.health,
            lifecycle=lifecycle,
        )

    return daemon_process.serve(standalone.PROGRAM, serve, check_config=lambda: config_of(args))


def config_of(args: argparse.Namespace) -> StreamConfig:
    """What the file says, and above it the command line. Raises ``ConfigError``."""
    config = StreamConfig() if args.config is None else load(args.config, StreamConfig)
    dead = args.dead_letter_topic or f"{args.topic}.dead"
    kafka = config.kafka if args.bootstrap is None else replace(config.kafka, bootstrap_servers=args.bootstrap)
    try:
        stream = replace(config.stream, topic=args.topic, group=args.group, dead_letter_topic=dead)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    return replace(config, kafka=kafka, stream=stream)
