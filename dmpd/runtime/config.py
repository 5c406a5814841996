"""YAML files to msgspec Structs: every problem at once, each with file, line, path, and what was expected.

The Structs are the schema: there is no other. Overlays are read after the file: for ``/etc/dmpd/dmpd.yaml`` all of
``/etc/dmpd/dmpd.d/*.yaml`` in the order of their names; mappings merge by key, everything else replaces.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
import yaml

from dmpd.runtime.config_words import describe_type, describe_value

T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(Exception):
    """The files say something that cannot be used; ``problems`` has a sentence for each place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(list(problems))
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


def load(path: Path, schema: type[T]) -> T:
    """Read ``path`` and its overlays as ``schema``. Blocks for the disk.

    Raises:
        ConfigError: A file cannot be read or parsed, or fields are unknown, missing, of a wrong type or out of range.
    """
    root: yaml.Node | None = None
    for file in (path, *sorted(path.with_suffix(".d").glob("*.yaml"))):
        root = _merge(root, _compose(file))
    if root is None:
        root = yaml.MappingNode("tag:yaml.org,2002:map", [], _mark(path), _mark(path))
    problems: list[str] = []
    _check(root, schema, "", problems)
    if problems:
        raise ConfigError(problems)
    return msgspec.convert(_construct(root), schema)


def _mark(path: Path) -> yaml.Mark:
    return yaml.Mark(str(path), 0, 0, 0, None, 0)


def _compose(path: Path) -> yaml.Node | None:
    try:
        with path.open(encoding="utf-8") as stream:
            return yaml.compose(stream, yaml.SafeLoader)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{path}:{line} not YAML: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not YAML: {error}"]) from error


def _merge(below: yaml.Node | None, above: yaml.Node | None) -> yaml.Node | None:
    if above is None:
        return below
    if not isinstance(below, yaml.MappingNode) or not isinstance(above, yaml.MappingNode):
        return above
    merged = {key.value: (key, value) for key, value in below.value}
    for key, value in above.value:
        known = merged.get(key.value)
        merged[key.value] = (key, value if known is None else _merge(known[1], value))
    return yaml.MappingNode(above.tag, list(merged.values()), above.start_mark, above.end_mark)


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check(node: yaml.Node, hint: Any, path: str, problems: list[str]) -> None:
    struct = _struct_of(hint)
    if struct is not None and isinstance(node, yaml.MappingNode):
        _check_mapping(node, struct, path, problems)
        return
    try:
        value = _construct(node)
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        if where:  # inside a list or a map: msgspec names the place better than we could
            problems.append(f"{_place(node)} {path}{where.rstrip('`')}: {what}")
        else:
            problems.append(f"{_place(node)} {path}: expected {describe_type(hint)}, got {describe_value(value)}")
    except yaml.MarkedYAMLError as error:
        problems.append(f"{_place(node)} {path}: {error.problem}")


def _check_mapping(node: yaml.MappingNode, struct: type[msgspec.Struct], path: str, problems: list[str]) -> None:
    hints = get_type_hints(struct, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        here = f"{path}.{name}" if path else name
        if name in seen:
            problems.append(f"{_place(key)} {here}: given twice")
        elif name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(fields)}"
            problems.append(f"{_place(key)} {here}: unknown key{hint}")
        else:
            _check(value, hints[fields[name].name], here, problems)
        seen.add(name)
    for name, field in fields.items():
        if field.required and name not in seen:
            here = f"{path}.{name}" if path else name
            problems.append(f"{_place(node)} {here}: missing, expected {describe_type(hints[field.name])}")


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}:{node.start_mark.line + 1}"
