"""Runs one of a program's commands; each is a module that is imported only when it is asked for.

A command module offers ``HELP``, ``configure(parser)`` and ``run(args) -> exit code``.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol, cast

from dmpd import __version__
from dmpd.cli.config import settle
from dmpd.runtime import exit_codes
from dmpd.runtime.config import ConfigError
from dmpd.runtime.errors import BindError, UnavailableError

_EXTRAS: Final = {"cryptography": "ca"}
"""Which of dmpd's extras brings a library, if not ``cloud``."""


class Command(Protocol):
    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(settle(exit_codes.USAGE))


def run(program: str, about: str, commands: Mapping[str, str], argv: Sequence[str] | None) -> int:
    """Parse ``argv``, run the command, return its exit code.

    ``commands`` maps names to modules. Errors of servers and of the configuration become one sentence on stderr.
    """
    parser = _Parser(prog=program, description=about)
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((one for one in arguments if not one.startswith("-")), None)
    if named is not None and named not in commands:
        parser.error(f"unknown command {named!r}; there are: {', '.join(commands)}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser, required=True)
    for name, module in commands.items():
        if named in (None, name):
            add(subparsers, name, module)
    args = parser.parse_args(arguments)
    command: Command = args.module
    try:
        return settle(command.run(args))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return settle(exit_codes.CONFIG)
    except UnavailableError as error:
        print(f"{program} {args.command}: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    except BindError as error:  # maybe a former instance that has not ended yet: supervisord tries again
        print(f"{program} {args.command}: {error}", file=sys.stderr)
        return exit_codes.INTERNAL
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return exit_codes.OK


def add(subparsers: "argparse._SubParsersAction[Any]", name: str, module: str) -> None:
    """One command, or a part of one; where a library is not installed (on a RAE the cloud's), it says so when run."""
    try:
        command = cast("Command", importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "dmpd":
            raise
        command = _Absent(error.name)
    parser = subparsers.add_parser(
        name,
        help=command.HELP,
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    parser.set_defaults(module=command)


class _Absent:
    """Needs a library that is not installed here."""

    def __init__(self, library: str) -> None:
        library = library.partition(".")[0]
        self.HELP = f"not here: needs {library} (pip install 'dmpd[{_EXTRAS.get(library, 'cloud')}]')"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    def run(self, args: argparse.Namespace) -> int:
        print(f"{args.command}: {self.HELP}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
