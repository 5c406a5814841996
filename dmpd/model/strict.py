"""JSON that both databases take and every reader understands alike: stricter than the JSON decoder is.

``msgspec`` refuses bad syntax and lone surrogates, but takes NUL, numbers of any size, any nesting and, in values kept
as raw JSON, bytes that are no UTF-8. Nearly every payload is harmless, so a scan of a microsecond decides whether
anybody must look closely: its hits may be false, its passes never are.
"""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Final, NoReturn

from dmpd.model import limits
from dmpd.model.content_size import number_size
from dmpd.model.invalid import InvalidMessageError

_SHAPE: Final = bytes.maketrans(b"123456789+E[", b"0000000000e{")
"""Digits and ``+`` become ``0``, both brackets that open ``{``: what is looked for is then a plain sub-string."""
_MANY_DIGITS: Final = b"0" * 18
_EXPONENTS: Final = {digits: (b"0e" + b"0" * digits, b"0e-" + b"0" * digits) for digits in (1, 2, 3)}
"""Of so many digits or more. The sign ``+`` counts as one, which makes some hits false."""
_TWO_DIGITS_HARMLESS_BYTES: Final = 800
"""In a text up to this no exponents of one or two digits (``1e99,``: 5 bytes, written out 101) break any bound."""
_ONE_DIGIT_HARMLESS_BYTES: Final = 5900
"""Likewise of one digit (``1e9,``)."""
_EXPONENT_LENGTH_MAX: Final = 6


def check_strict(payload: bytes, session: str) -> int:
    """Refuse what a database or another reader would discover later; returns what ``plain_bytes`` would.

    ``session`` is no number, but a UUID looks like one with a large exponent too often to look closely each time.

    Raises:
        InvalidMessageError: ``text``, ``range`` or ``malformed``.
    """
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise InvalidMessageError("text", "not UTF-8") from error
    return len(payload) + (_look_closely(payload) if _is_suspicious(payload, session) else 0)


def plain_bytes(text: bytes | memoryview) -> int:
    """Bytes of JSON with its numbers written out, as databases store and return them; never below its length.

    In a short text, which breaks no bound either way, numbers may be left as they are.

    Raises:
        InvalidMessageError: As ``check_strict``, if it looks closely.
    """
    text = bytes(text)
    return len(text) + (_look_closely(text) if _has_exponent(text.translate(_SHAPE)) else 0)


def parse_last_wins(payload: bytes) -> bytes | None:
    """The payload with the last of each duplicate key only, or ``None`` if no object has a key twice.

    Raises:
        InvalidMessageError: It is no JSON, or has a number out of range.
    """
    duplicates = 0

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal duplicates
        members = dict(pairs)
        duplicates += len(pairs) - len(members)
        return members

    value = _parse(payload, unique)
    return json.dumps(value, ensure_ascii=False).encode() if duplicates else None


def _is_suspicious(payload: bytes, session: str) -> bool:
    shape = payload.translate(_SHAPE)
    if _MANY_DIGITS in shape or shape.count(b"{") > limits.NESTING_MAX or b"\\u0000" in payload:
        return True
    return _has_exponent(shape) and _has_exponent(payload.replace(session.encode(), b"").translate(_SHAPE))


def _has_exponent(shape: bytes) -> bool:
    """Whether there may be one that matters in a text of this length."""
    size = len(shape)
    digits = 3 if size <= _TWO_DIGITS_HARMLESS_BYTES else 2 if size <= _ONE_DIGIT_HARMLESS_BYTES else 1
    big, small = _EXPONENTS[digits]
    return big in shape or small in shape


def _look_closely(payload: bytes) -> int:
    """Returns by how much its numbers make it longer if they are written out."""
    longer = 0

    def measured(digits: str) -> float:
        nonlocal longer
        number = _checked_float(digits)
        longer += max(0, number_size(Decimal(digits)) - len(digits))
        return number

    _check_value(_parse(payload, dict, measured), 1)
    return longer


def _parse(payload: bytes, pairs_hook: object, parse_float: Callable[[str], float] | None = None) -> object:
    try:
        return json.loads(
            payload.decode(),
            parse_int=_checked_int,
            parse_float=parse_float or _checked_float,
            parse_constant=_refused_constant,
            object_pairs_hook=pairs_hook,  # type: ignore[arg-type] # dict, or the counting one above
        )
    except InvalidMessageError:
        raise
    except RecursionError as error:
        raise InvalidMessageError("malformed", f"nested deeper than {limits.NESTING_MAX}") from error
    except ValueError as error:
        raise InvalidMessageError("malformed", str(error)) from error


def _check_value(value: object, depth: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidMessageError("text", "NUL character")
    elif isinstance(value, dict | list):
        if depth > limits.NESTING_MAX:
            raise InvalidMessageError("malformed", f"nested deeper than {limits.NESTING_MAX}")
        if isinstance(value, dict):
            for name in value:
                _check_value(name, depth)
            value = list(value.values())
        for item in value:
            _check_value(item, depth + 1)


def _checked_int(digits: str) -> int:
    if len(digits) > 20 or not -limits.INT64_MAX - 1 <= (number := int(digits)) <= limits.INT64_MAX:
        raise InvalidMessageError("range", "integer beyond 64 bits")
    return number


def _checked_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidMessageError("range", "number beyond a double")
    if number == 0 and digits.lower().partition("e")[0].strip("-0."):
        raise InvalidMessageError("range", "number too small for a double")  # PostgreSQL may refuse it
    _check_places(digits)
    return number


def _check_places(digits: str) -> None:
    """Of a float in range; such a zero may have any exponent still (``0e-99999``)."""
    mantissa, _, exponent = digits.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    if len(exponent) > _EXPONENT_LENGTH_MAX or abs(places - int(exponent or 0)) > limits.DECIMAL_PLACES_MAX:
        raise InvalidMessageError("range", f"number of more than {limits.DECIMAL_PLACES_MAX} decimal places")


def _refused_constant(name: str) -> NoReturn:
    raise InvalidMessageError("malformed", f"{name} is no JSON number")
