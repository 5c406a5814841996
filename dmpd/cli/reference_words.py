"""Structs and constants as rows of tables: what the reference pages are made of."""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_type_hints

import msgspec

from dmpd.runtime.config_environment import struct_of
from dmpd.runtime.config_words import describe_type, describe_value


def settings_rows(schema: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """``(path, accepts, default, meaning)`` of each setting, sections taken apart."""
    hints = get_type_hints(schema, include_extras=True)
    meanings = docs_below(schema)
    for field in msgspec.structs.fields(schema):
        section = struct_of(hints[field.name])
        if section is not None:
            yield from settings_rows(section, f"{prefix}{field.encode_name}.")
            continue
        meaning = meanings.get(field.name, "")
        yield f"{prefix}{field.encode_name}", describe_type(hints[field.name]), default_of(field), meaning


def field_rows(message: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """``(name on the wire, accepts, required or default)`` of each field of a message."""
    hints = get_type_hints(message, include_extras=True)
    for field in msgspec.structs.fields(message):
        yield field.encode_name, describe_type(hints[field.name]), default_of(field)


def docs_below(holder: type[Any] | ModuleType) -> dict[str, str]:
    """The docstring under each annotated name of a class or module, as one line of a table."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(holder)))
    body = tree.body if isinstance(holder, ModuleType) else getattr(tree.body[0], "body", [])
    found: dict[str, str] = {}
    for before, after in itertools.pairwise(body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[before.target.id] = cell(str(after.value.value))
    return found


def cell(text: str) -> str:
    """One line that fits a Markdown table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def default_of(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or value is msgspec.UNSET or isinstance(value, (msgspec.Struct, msgspec.Raw, tuple)):
        return "absent"
    return "empty" if value in ({}, []) else f"`{describe_value(value)}`"
