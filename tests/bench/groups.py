"""The command line and the course of a benchmark that has groups of figures, any of which may be taken alone."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from tests.bench.report import Figure, publish

_Measure = TypeVar("_Measure")


def parse(about: str | None, names: Iterable[str]) -> argparse.Namespace:
    """``only`` (groups, or None for all) and ``short``."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", choices=sorted(names), action="append", help="these groups; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer and shorter: for trying, not for stating")
    return parser.parse_args()


def run(
    name: str,
    options: argparse.Namespace,
    groups: Mapping[str, _Measure],
    measured: Callable[[_Measure], list[Figure]],
    *,
    failures: tuple[type[Exception], ...] = (),
) -> None:
    """Take each chosen group by ``measured``, then publish.

    A group that ends by one of ``failures`` costs itself alone: it is named at the exit.
    """
    figures: list[Figure] = []
    failed: list[str] = []
    began_s = time.monotonic()
    for group in options.only or groups:
        print(f"{time.monotonic() - began_s:.0f} s: {group} begins", flush=True)
        try:
            found = measured(groups[group])
        except failures as error:  # the others are worth having all the same
            print(f"{group} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(group)
            continue
        print(*(f"{one.figure}: {one.value:.4g} {one.unit}" for one in found), sep="\n", flush=True)
        figures += found
    publish("-".join([name, *(options.only or ())]), figures)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")
