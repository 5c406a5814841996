"""Output that needs no library: what is said on a router looks like what ``tables`` shows in the cloud."""

from collections.abc import Sequence

import msgspec


def text(value: object) -> str:
    """A cell; what is unknown is a dash."""
    return "-" if value is None or value == "" else str(value)


def printable(value: str, *, keep: str = "") -> str:
    """Text of unknown origin for a terminal: what could steer it is escaped, but for the characters of ``keep``."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in value)


def print_json(value: object) -> None:
    """One line of JSON on stdout."""
    print(msgspec.json.encode(value).decode())


def print_columns(rows: Sequence[Sequence[object]]) -> None:
    """Rows under each other, columns as wide as their widest cell."""
    cells = [[printable(text(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
