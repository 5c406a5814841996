"""``dmpd access``: keeps the MQTT broker's rules equal to the grants in the database, and ends them in time.

Ends hold with the database away, and after a restart too: the broker's rules say themselves when they end. HUP or
``dmpctl reload`` has it begin anew with the changed configuration.

Exit codes: 0 ended after TERM, 64 wrong usage, 70 an error of ours, 78 the configuration.
"""

import argparse
from typing import Final

from dmpd.access import daemon
from dmpd.access.feed import SchemaProblemError
from dmpd.cli.config import add_config_argument, load_cloud_config
from dmpd.cloud_registry import migrate
from dmpd.runtime import daemon_process, log
from dmpd.runtime.database import Connection
from dmpd.runtime.lifecycle import Lifecycle

HELP: Final = "keeps the MQTT broker's rules equal to the grants, and ends them in time"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    log.setup(config.log, daemon.PROGRAM)

    def serve(lifecycle: Lifecycle) -> int:
        return daemon.run(
            config.access,
            mqtt=config.mqtt,
            database=config.database,
            lifecycle=lifecycle,
            check_schema=check_schema,
            crl_file=config.ca.crl_file,
        )

    return daemon_process.serve(daemon.PROGRAM, serve, check_config=lambda: load_cloud_config(args))


def check_schema(connection: Connection) -> None:
    """Raises ``SchemaProblemError``: these are not the tables that this program knows."""
    try:
        migrate.check(connection)
    except migrate.SchemaError as error:
        raise SchemaProblemError(str(error)) from error
