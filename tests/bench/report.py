"""What every benchmark ends with: a table for people and ``build/bench/NAME.json`` for programs."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"


class Figure(msgspec.Struct, kw_only=True):
    """One measured thing: the median of ``n`` runs and their range; ``reference`` was measured in the same run."""

    figure: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    bar: str | None = None
    n: int
    min: float
    max: float


def figure(
    name: str,
    unit: str,
    samples: Sequence[float],
    *,
    reference: Sequence[float] | None = None,
    bar: str | None = None,
) -> Figure:
    """Summarize ``samples``; ``reference`` holds the runs of what it is compared with, interleaved with them."""
    value = median(samples)
    base = median(reference) if reference else None
    return Figure(
        figure=name,
        value=value,
        unit=unit,
        reference=base,
        ratio=value / base if base else None,
        bar=bar,
        n=len(samples),
        min=min(samples),
        max=max(samples),
    )


def worst(name: str, unit: str, samples: Sequence[float], *, bar: str) -> Figure:
    """Of what must never be above its bar, the largest counts, not the median."""
    found = figure(name, unit, samples, bar=bar)
    found.value = found.max
    return found


def percentile(name: str, unit: str, samples: Sequence[float], part: float, *, bar: str | None = None) -> Figure:
    """One percentile (``part`` of 1) of one series; ``n``, min and max are those of all its samples."""
    found = figure(name, unit, samples, bar=bar)
    found.value = sorted(samples)[int(len(samples) * part)]
    return found


def publish(name: str, figures: Sequence[Figure], *, keep: bool = False) -> None:
    """Print the table and write the file; ``keep`` what stands there of figures that are not among these."""
    file = FOLDER / f"{name}.json"
    if keep and file.exists():
        made = {one.figure for one in figures}
        before = msgspec.json.decode(file.read_bytes(), type=list[Figure])
        figures = [*(one for one in before if one.figure not in made), *figures]
    table = Table(title=name)
    for column in ("figure", "value", "unit", "reference", "ratio", "bar", "n", "min", "max"):
        table.add_column(column, justify="left" if column in ("figure", "unit", "bar") else "right")
    for one in figures:
        table.add_row(*(_cell(getattr(one, column.header)) for column in table.columns))
    Console(width=140).print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
