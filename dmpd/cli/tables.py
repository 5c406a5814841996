"""Tables for people and JSON for programs, alike in every command of dmpctl."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmpd.cli import plain

STATE_STYLES: Final = {"online": "green", "offline": "red", "flapping": "yellow", "ready": "green", "lost": "red"}
text, printable, print_json = plain.text, plain.printable, plain.print_json
_WIDTH_OF_FILES: Final = 240
"""Columns when the output is no terminal: nothing is cut."""


_MILLENNIUM_S: Final = 365.25 * 86_400 * 1000


def console() -> Console:
    """Of stdout; colours only on a terminal, and not when ``NO_COLOR`` is set."""
    is_terminal = sys.stdout.isatty()
    return Console(highlight=False, markup=False, width=None if is_terminal else _WIDTH_OF_FILES)


def table(columns: Sequence[str], *, right: Sequence[str] = (), title: str | None = None) -> Table:
    """An empty table; ``right`` names the columns of numbers."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def state_text(state: str | None, *, doubtful: bool = False) -> Text:
    """A state in its colour, dim while nobody can vouch for it."""
    if state is None:
        return Text("-", style="dim")
    return Text(state, style="dim" if doubtful else STATE_STYLES.get(state, ""))


def cell(value: object) -> str:
    """A cell of what programs get as JSON; what is unknown is a dash."""
    return ("yes" if value else "no") if isinstance(value, bool) else text(value)


def shown(value: object) -> str:
    """A cell of text that a device or a RAE made up: what could steer a terminal is escaped."""
    return printable(text(value))


def duration(value_s: float | None) -> str:
    """So long, in one unit or two: ``12 s``, ``3 min 20 s``, ``5 h 7 min``, ``3 d 4 h``; below 10 s to the ms.

    Whatever a RAE said: beyond a thousand years it is said to be that.
    """
    if value_s is None:
        return "-"
    if abs(value_s) > _MILLENNIUM_S:
        return f"{'-' if value_s < 0 else ''}> 1000 y"
    if abs(value_s) < 10:
        return f"{value_s:.3f} s"
    whole = round(abs(value_s))
    sign = "-" if value_s < 0 else ""
    for unit_s, unit, part_s, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            return f"{sign}{whole // unit_s} {unit} {whole % unit_s // part_s} {part}"
    return f"{sign}{whole} s"


def instant(value: datetime | None) -> str:
    """UTC, to the second."""
    return "-" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
