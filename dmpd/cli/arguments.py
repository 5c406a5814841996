"""Numbers and addresses on a command line, with the words that say what was expected."""

import argparse
import math
from typing import Final

from dmpd.runtime.errors import BindError
from dmpd.runtime.health import parse_bind

PARTITION_MAX: Final = (1 << 31) - 1
"""Kafka's own."""


def seconds(text: str) -> float:
    """A duration, 0 or more."""
    return _number(text, what="seconds, 0 or more")


def rate(text: str) -> float:
    """So many per second, 0 or more."""
    return _number(text, what="a rate per second, 0 or more", high=1e6)


def count(text: str) -> int:
    """How many, 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"expected 1 to 100000, got {text!r}")
    return number


def partition(text: str) -> int:
    """A partition of a topic, by its number."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(PARTITION_MAX)) else -1
    if not 0 <= number <= PARTITION_MAX:
        raise argparse.ArgumentTypeError(f"expected a partition, 0 to {PARTITION_MAX}, got {text[:40]!r}")
    return number


def bind(text: str) -> str:
    """Where a health server listens."""
    try:
        parse_bind(text)
    except BindError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _number(text: str, *, what: str, high: float = math.inf) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 <= number <= high and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
    return number
