"""``dmpd bridge``."""

import argparse

from dmpd.bridge import daemon
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.runtime import log
from dmpd.runtime.lifecycle import Lifecycle

HELP = "carry messages between the MQTT broker and Kafka"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    log.setup(config.log, daemon.PROGRAM)
    return daemon.run(
        config.bridge, kafka=config.kafka, mqtt=config.mqtt, topics=config.topics, lifecycle=Lifecycle(daemon.PROGRAM)
    )
