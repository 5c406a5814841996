"""``dmpd canary``: every few hours a flash crowd of RAEs of its own, and a verdict; with ``--once`` one run now.

HUP or ``dmpctl reload`` has the daemon begin anew with the changed configuration; a run under way ends as ``unknown``.

Exit codes: 0 ended after TERM, 64 wrong usage, 70 an error of ours, 78 the configuration or the database's schema is
wrong; with ``--once`` 0 the verdict is pass, 1 fail, 3 degraded, 69 unknown, or the database does not answer, 4 the
canary is disabled, 75 another run is under way.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

import msgspec
from msgspec import structs

from dmpd.canary import daemon, store
from dmpd.canary.platform import Platform
from dmpd.canary.report import Report, Word
from dmpd.canary.run import BusyError, DisabledError, NotNowError, run_once
from dmpd.canary.settings import CanarySettings, Profile, Ramp
from dmpd.cli.arguments import count
from dmpd.cli.canary_view import report_view
from dmpd.cli.config import CloudConfig, add_config_argument, load_cloud_config
from dmpd.cli.daemons import reachable
from dmpd.cli.tables import console
from dmpd.cloud_registry import migrate
from dmpd.runtime import daemon_process, exit_codes, log
from dmpd.runtime.config import ConfigError
from dmpd.runtime.database import DatabaseError
from dmpd.runtime.lifecycle import Lifecycle

HELP: Final = "a flash crowd of RAEs every few hours, and a verdict"
CODES: Final[Mapping[Word, int]] = {
    "pass": exit_codes.OK,
    "degraded": exit_codes.FAILED,
    "fail": exit_codes.DIFFERENT,
    "unknown": exit_codes.UNAVAILABLE,
}


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--once", action="store_true", help="one run now, with a report at its end")
    parser.add_argument("--clients", type=count, metavar="N", help="with --once: the size of the crowd")
    parser.add_argument("--seed", type=int, metavar="S", help="with --once: of all contents (default: a new one)")
    parser.add_argument("--ramp", choices=get_args(Ramp), help="with --once: how the crowd comes")
    parser.add_argument("--profile", choices=get_args(Profile), help="with --once: how it sends")
    parser.add_argument("--json", action="store_true", help="with --once: the report for programs, no progress")
    parser.add_argument("--trigger", default="hand", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    config = load_cloud_config(args)
    log.setup(config.log, daemon.PROGRAM)
    if args.once:
        return _once(config, args)
    with_options = [name for name in ("clients", "seed", "ramp", "profile") if getattr(args, name) is not None]
    if with_options or args.json:
        print(f"dmpd canary: --{(with_options or ['json'])[0]} is for --once", file=sys.stderr)
        return exit_codes.USAGE
    _check_schema(config)

    def serve(lifecycle: Lifecycle) -> int:
        return daemon.run(
            config.canary,
            database=config.database,
            command=once_command(sys.argv[0], args.config),
            lifecycle=lifecycle,
        )

    return daemon_process.serve(daemon.PROGRAM, serve, check_config=lambda: load_cloud_config(args))


def once_command(program: str, config: Path) -> list[str]:
    """One scheduled run, by the same Python and the same script ``program`` that we are."""
    command = [sys.executable, program, "canary", "--once", "--json", "--trigger", "schedule"]
    return [*command, "--config", str(config)]


def settings_of(config: CloudConfig, args: argparse.Namespace) -> CanarySettings:
    """The configuration's, with what the command line says. Raises ``ConfigError``."""
    given = {name: getattr(args, name) for name in ("clients", "ramp", "profile") if getattr(args, name) is not None}
    try:
        return structs.replace(config.canary, **given)
    except ValueError as error:
        raise ConfigError([f"--once: {error}"]) from error


def platform_of(config: CloudConfig) -> Platform:
    return Platform(
        kafka=config.kafka,
        topics=config.topics,
        mqtt=config.mqtt,
        database=config.database,
        group=config.cloud_registry.stream.group,
        registry_bind=reachable(config.cloud_registry.health_bind),
    )


def _once(config: CloudConfig, args: argparse.Namespace) -> int:
    settings, platform = settings_of(config, args), platform_of(config)
    _check_schema(config)
    lifecycle = Lifecycle(daemon.PROGRAM)
    progress = _Progress(silent=args.json)

    async def work() -> Report:
        lifecycle.install_async(asyncio.get_running_loop())
        return await run_once(
            settings,
            platform,
            trigger=args.trigger,
            seed=args.seed,
            say=progress.say,
            stop=lifecycle.wait_stop(),
        )

    try:
        report = asyncio.run(work())
    except NotNowError as error:
        print(f"dmpd canary: {error}", file=sys.stderr)
        code = {BusyError: exit_codes.BUSY, DisabledError: exit_codes.REFUSED}
        return code[type(error)]
    except DatabaseError as error:
        print(f"dmpd canary: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    if args.json:
        print(msgspec.json.encode(report).decode(), flush=True)
    else:
        console().print(report_view(report))
    return CODES[report.verdict]


def _check_schema(config: CloudConfig) -> None:
    """Raises ``ConfigError``: the tables are not those of this dmpd; ``UnavailableError``: no answer."""
    with store.connected(config.database) as connection:
        try:
            migrate.check(connection)
        except migrate.SchemaError as error:
            raise ConfigError([str(error)]) from error


class _Progress:
    """A line when a phase begins, and one every few seconds with how far it is."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._began_s = time.monotonic()

    def say(self, phase: str, figures: Mapping[str, object]) -> None:
        if self._silent:
            return
        told = ", ".join(
            f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in figures.items()
        )
        mark = "  " if figures else "> "
        print(f"{time.monotonic() - self._began_s:6.1f} s {mark}{phase}{': ' + told if told else ''}", flush=True)
