"""What every command of dmpctl that asks the database needs: a connection, and one sentence when there is none."""

import argparse
import contextlib
import sys
from collections.abc import Callable

from dmpd.cli.config import load_cloud_config
from dmpd.cloud_registry import migrate
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection, DatabaseError, DatabaseUnreachableError, connect


def ask(args: argparse.Namespace, work: Callable[[Connection], int]) -> int:
    """Run ``work`` with a connection in autocommit to the configured database; returns its exit code, or 69 or 78."""
    settings = load_cloud_config(args).database
    try:
        with contextlib.closing(connect(settings, application="dmpctl")) as connection:
            connection.autocommit = True
            migrate.check(connection)
            return work(connection)
    except migrate.SchemaError as error:
        print(f"dmpctl: {error}", file=sys.stderr)
        return exit_codes.CONFIG
    except (DatabaseUnreachableError, DatabaseError) as error:
        print(f"dmpctl: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
