"""How dmpctl shows what it asks the database: a table or JSON, once or again and again (``--watch``)."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from dmpd.cli import tables
from dmpd.cli.arguments import seconds
from dmpd.cli.database_command import ask
from dmpd.runtime import exit_codes
from dmpd.runtime.database import Connection
from dmpd.runtime.errors import UnavailableError

WATCH_S: Final = 2.0


class View(NamedTuple):
    """What a question found: for programs, for people, and its exit code."""

    json: object
    shown: Callable[[], RenderableType]
    code: int = exit_codes.OK


class NothingToShowError(Exception):
    """What was asked for is not there, or is not one; the text says so, ``code`` is the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence, code)
        self.sentence = sentence
        self.code = code


Look = Callable[[Connection], View]
"""Asks the database. Raises ``NothingToShowError``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--watch``."""
    parser.add_argument("--json", action="store_true", help="for programs; with --watch one line a look")
    parser.add_argument(
        "--watch",
        type=_interval,
        nargs="?",
        const=WATCH_S,
        metavar="S",
        help=f"look again every S seconds ({WATCH_S:g}), until Ctrl-C",
    )


def show(args: argparse.Namespace, look: Look, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Look once, or until Ctrl-C; returns the exit code of the last look, or 0 after ``--watch``."""
    if args.watch is None:
        return _print(args, look)
    try:
        if args.json or not sys.stdout.isatty():
            while True:
                _try(lambda: _print(args, look))
                sys.stdout.flush()
                sleep(args.watch)
        _live(args, look, sleep)
    except KeyboardInterrupt:
        return exit_codes.OK


def _print(args: argparse.Namespace, look: Look) -> int:
    def work(connection: Connection) -> int:
        try:
            view = look(connection)
        except NothingToShowError as error:
            print(f"dmpctl {args.command}: {error.sentence}", file=sys.stderr)
            return error.code
        if args.json:
            tables.print_json(view.json)
        else:
            tables.console().print(view.shown())
        return view.code

    return ask(args, work)


def _live(args: argparse.Namespace, look: Look, sleep: Callable[[float], None]) -> NoReturn:
    """The whole screen, drawn anew at each look. Never returns by itself."""
    with Live(console=tables.console(), screen=True, auto_refresh=False) as live:

        def work(connection: Connection) -> int:
            try:
                shown = look(connection).shown()
            except NothingToShowError as error:
                shown = Text(error.sentence)
            live.update(shown, refresh=True)
            return exit_codes.OK

        while True:
            problem = _try(lambda: ask(args, work))
            if problem is not None:
                live.update(Text(problem, style="red"), refresh=True)
            sleep(args.watch)


def _try(work: Callable[[], int]) -> str | None:
    """While watching, a server that is away is a line, and no end."""
    try:
        work()
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return str(error)
    return None


def _interval(text: str) -> float:
    wait_s = seconds(text)
    if wait_s < 0.1:
        raise argparse.ArgumentTypeError(f"expected 0.1 s or more, got {text!r}")
    return wait_s
