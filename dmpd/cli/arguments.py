"""Numbers, times and addresses on a command line, with the words that say what was expected."""

import argparse
import getpass
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec

from dmpd.model import limits
from dmpd.model.principals import PrincipalKind, is_rae, principal_kind
from dmpd.model.requests import LIFETIME_MAX_S
from dmpd.model.strict import check_strict
from dmpd.runtime.errors import BindError
from dmpd.runtime.health import parse_bind

PARTITION_MAX: Final = (1 << 31) - 1
"""Kafka's own."""
_DURATION: Final = re.compile(r"(\d+)([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

_T = TypeVar("_T")


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


def since(text: str) -> datetime:
    """An instant: so long ago, or RFC 3339."""
    found = _DURATION.fullmatch(text)
    try:
        if found is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
        return _in_utc(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"expected 30m, 2h, 3d or an RFC 3339 time, got {text!r}") from error


def span(text: str) -> timedelta:
    """So long: 30m, 2h, 30d."""
    found = _DURATION.fullmatch(text)
    try:
        if found is not None:
            return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        found = None
    raise argparse.ArgumentTypeError(f"expected 30m, 2h or 30d, got {text[:40]!r}")


def instant(text: str) -> datetime:
    """A time of day and date; without an offset it is UTC."""
    try:
        return _in_utc(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"expected an RFC 3339 time, got {text[:40]!r}") from error


def _in_utc(text: str) -> datetime:
    """Raises ``ValueError``, ``OverflowError``."""
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)


def rae(text: str) -> str:
    """The serial of a RAE."""
    if not is_rae(text):
        raise argparse.ArgumentTypeError(f"expected the serial of a RAE, got {text[:80]!r}")
    return text


def operator(text: str) -> str:
    """An operator's name: who a request is from."""
    if principal_kind(text) is not PrincipalKind.OPERATOR:
        raise argparse.ArgumentTypeError(f"expected op-NAME, got {text[:80]!r}")
    return text


def default_operator() -> str:
    """After the login, as far as its letters go."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        login = "nobody"
    return "op-" + (re.sub(r"[^A-Za-z0-9._-]", "-", login)[:60] or "nobody")


def lifetime(text: str) -> int:
    """Of a request, in whole seconds."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= LIFETIME_MAX_S:
        raise argparse.ArgumentTypeError(f"expected whole seconds, 1 to {LIFETIME_MAX_S}, got {text[:40]!r}")
    return number


def printable(text: str) -> str:
    """A text as devices and RAEs say it; what a shell passes on may be no text at all."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected printable text, got {text[:80]!r}")
    return text


def attribute(text: str) -> tuple[str, str]:
    """``NAME=VALUE``: a name and JSON text. What is no JSON is a string, so that ``test_state=in_test`` will do.

    No JSON is also what no message may say (NUL, numbers out of range): a database refuses to compare it.
    """
    name, separator, value = printable(text).partition("=")
    if not separator or not 1 <= len(name.encode()) <= limits.ATTRIBUTE_KEY_BYTES_MAX:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, for example test_state=in_test, got {text[:80]!r}")
    try:
        msgspec.json.decode(value)
        check_strict(value.encode(), "")
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return name, json.dumps(value)
    return name, value


def checked(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """``parse`` for argparse, which shows the text of an ``ArgumentTypeError`` and hides that of a ``ValueError``."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


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
