"""``dmpd cloud-registry``: one instance of the Cloud Registry, from Kafka to the database, until TERM.

HUP or ``dmpctl reload`` has it drain and begin anew with the changed configuration.

Exit codes: 0 drained after TERM, 70 an error of ours (start it again), 78 the configuration, Kafka's credentials or the
database's schema are wrong.
"""

import argparse
from typing import Final

from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cloud_registry import daemon
from dmpd.runtime import daemon_process, log
from dmpd.runtime.lifecycle import Lifecycle

HELP: Final = "make rows of the feed: Kafka to the database"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    log.setup(config.log, daemon.PROGRAM)

    def serve(lifecycle: Lifecycle) -> int:
        return daemon.run(
            config.cloud_registry,
            kafka=config.kafka,
            topics=config.topics,
            database=config.database,
            log=config.log,
            lifecycle=lifecycle,
        )

    return daemon_process.serve(daemon.PROGRAM, serve, check_config=lambda: load_cloud_config(args))
