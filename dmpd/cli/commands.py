"""Runs one of a program's commands; each is a module that is imported only when it is asked for.

A command module offers ``HELP``, ``configure(parser)`` and ``run(args) -> exit code``.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol, cast

from dmpd import __version__
from dmpd.cli.config import refuse_config
from dmpd.runtime import exit_codes
from dmpd.runtime.config import ConfigError
from dmpd.runtime.kafka import KafkaRefusedError, KafkaUnreachableError


class Command(Protocol):
    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(exit_codes.USAGE)


def run(program: str, about: str, commands: Mapping[str, str], argv: Sequence[str] | None) -> int:
    """Parse ``argv``, run the command, return its exit code.

    ``commands`` maps names to modules. Errors of servers and of the configuration become one sentence on stderr.
    """
    parser = _Parser(prog=program, description=about)
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((one for one in arguments if not one.startswith("-")), None)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser, required=True)
    for name, module in commands.items():
        if named in (None, name) or named not in commands:
            command = cast("Command", importlib.import_module(module))
            doc = importlib.import_module(module).__doc__
            command.configure(
                subparsers.add_parser(
                    name,
                    help=command.HELP,
                    description=doc,
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                )
            )
    args = parser.parse_args(arguments)
    command = cast("Command", importlib.import_module(commands[args.command]))
    try:
        return command.run(args)
    except ConfigError as error:
        return refuse_config(error)
    except (KafkaRefusedError, KafkaUnreachableError) as error:
        print(f"{program} {args.command}: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return exit_codes.OK
