"""``dmpd bridge``: carries messages between the MQTT broker and Kafka, without loss and in order.

HUP or ``dmpctl reload`` has it drain and begin anew with the changed configuration.

Exit codes: 0 drained after TERM (a second TERM ends it at once), 64 wrong usage, 70 an error of ours, 78 the
configuration, or Kafka refuses our credentials.
"""

import argparse
from typing import Final

from dmpd.bridge import daemon
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import daemon_process, log
from dmpd.runtime.lifecycle import Lifecycle

HELP: Final = "carries messages between the MQTT broker and Kafka"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    log.setup(config.log, daemon.PROGRAM)

    def serve(lifecycle: Lifecycle) -> int:
        return daemon.run(
            config.bridge, kafka=config.kafka, mqtt=config.mqtt, topics=config.topics, lifecycle=lifecycle
        )

    return daemon_process.serve(daemon.PROGRAM, serve, check_config=lambda: load_cloud_config(args))
