"""What a setting may be, and what was found instead, in the words of error messages and of the reference page."""

from typing import Any, Final

import msgspec
from msgspec import inspect

_NAMES: Final = {
    inspect.BoolType: "true or false",
    inspect.DictType: "a map",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.NoneType: "nothing",
    inspect.RawType: "any JSON",
    inspect.DateTimeType: "an instant with zone (RFC 3339)",
}


def describe_type(hint: Any) -> str:
    """``int ≥ 1``, ``text``, ``one of text, json``: what a field with this annotation accepts."""
    return _describe(inspect.type_info(hint))


def describe_value(value: object) -> str:
    """A value as the user wrote it, shortened: ``"many"``, ``12``, ``a map``."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _describe(wanted: inspect.Type) -> str:
    if isinstance(wanted, inspect.UnionType):
        words = [_describe(one) for one in wanted.types if not isinstance(one, inspect.NoneType)]
        return " or ".join(words)
    if isinstance(wanted, inspect.LiteralType):
        return f"one of {', '.join(str(one) for one in wanted.values)}"
    if isinstance(wanted, inspect.IntType):
        return "int" + _bounds(wanted)
    if isinstance(wanted, inspect.FloatType):
        return "number" + _bounds(wanted)
    if isinstance(wanted, inspect.StrType):
        return "text" + (f" of at least {wanted.min_length} characters" if (wanted.min_length or 0) > 1 else "")
    if isinstance(wanted, inspect.StructType):
        return "a map"
    if isinstance(wanted, inspect.Metadata):
        return str((wanted.extra or {}).get("expected", _describe(wanted.type)))
    return _NAMES.get(type(wanted), type(wanted).__name__.removesuffix("Type").lower())


def _bounds(wanted: inspect.IntType | inspect.FloatType) -> str:
    low = f"≥ {wanted.ge}" if wanted.ge is not None else f"> {wanted.gt}" if wanted.gt is not None else ""
    high = f"≤ {wanted.le}" if wanted.le is not None else f"< {wanted.lt}" if wanted.lt is not None else ""
    words = " and ".join(word for word in (low, high) if word)
    return f" {words}" if words else ""
