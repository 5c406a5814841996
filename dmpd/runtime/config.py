"""YAML files to msgspec Structs: every problem at once, each with file, line, path, and what was expected.

The Structs are the schema: there is no other. Overlays are read after the file: for ``/etc/dmpd/dmpd.yaml`` all of
``/etc/dmpd/dmpd.d/*.yaml`` in the order of their names; mappings merge by key, everything else replaces. Variables of
the environment come last (``config_environment``).
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import yaml

from dmpd.runtime.config_environment import PLACE, nodes_of, struct_of
from dmpd.runtime.config_words import describe_type, describe_value

T = TypeVar("T", bound=msgspec.Struct)

_MAP: Final = "tag:yaml.org,2002:map"
_NULL: Final = "tag:yaml.org,2002:null"


class ConfigError(Exception):
    """The files say something that cannot be used; ``problems`` has a sentence for each place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(list(problems))
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Given(msgspec.Struct, frozen=True):
    """A setting that is not its default: ``kafka.options``, and where it was said, ``FILE:LINE`` or a variable."""

    path: str
    source: str


def load(path: Path, schema: type[T], *, environment: Mapping[str, str] | None = None) -> T:
    """Read ``path`` and its overlays, and variables of ``environment`` (the process's), as ``schema``.

    Blocks for the disk. A section that is there but empty (``kafka:``, all below it commented out) counts as absent.

    Raises:
        ConfigError: A file cannot be read or parsed, or fields are unknown, missing, of a wrong type or out of range.
    """
    return load_with_sources(path, schema, environment=environment)[0]


def load_with_sources(
    path: Path, schema: type[T], *, environment: Mapping[str, str] | None = None
) -> tuple[T, list[Given]]:
    """What ``load`` returns, and where each setting in it comes from, if it is not its default."""
    root = _compose_all(path, schema, os.environ if environment is None else environment)
    return msgspec.convert(_construct(root), schema), list(_given(root, schema, ""))


def _compose_all(path: Path, schema: type[msgspec.Struct], environment: Mapping[str, str]) -> yaml.Node:
    """Everything merged and found good. Raises ``ConfigError``."""
    problems: list[str] = []
    root: yaml.Node | None = None
    for file in (path, *sorted(path.with_suffix(".d").glob("*.yaml"))):
        node = _compose(file)
        if node is not None:
            _find_twice(node, "", problems)
        root = _merge(root, node)
    for variable in nodes_of(environment, schema, problems):
        root = _merge(root, variable)
    if root is None:
        mark = yaml.Mark(str(path), 0, 0, 0, None, 0)
        root = yaml.MappingNode(_MAP, [], mark, mark)
    _check(root, schema, "", problems)
    if problems:
        raise ConfigError(problems)
    return root


def _given(node: yaml.Node, schema: type[msgspec.Struct], path: str) -> Iterator[Given]:
    assert isinstance(node, yaml.MappingNode)
    hints = get_type_hints(schema, include_extras=True)
    names = {field.encode_name: field.name for field in msgspec.structs.fields(schema)}
    for key, value in node.value:
        section = struct_of(hints[names[str(key.value)]])
        if section is not None and isinstance(value, yaml.MappingNode):
            yield from _given(value, section, _join(path, key))
        else:
            yield Given(_join(path, key), _place(value))


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
    except RecursionError as error:
        raise ConfigError([f"{path}: nested too deeply"]) from error


def _find_twice(node: yaml.Node, path: str, problems: list[str]) -> None:
    """Before merging: a merge would hide it."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        here = _join(path, key)
        if str(key.value) in seen:
            problems.append(f"{_place(key)} {here}: given twice")
        seen.add(str(key.value))
        _find_twice(value, here, problems)


def _merge(below: yaml.Node | None, above: yaml.Node | None) -> yaml.Node | None:
    if above is None or (isinstance(below, yaml.MappingNode) and above.tag == _NULL):
        return below
    if not isinstance(below, yaml.MappingNode) or not isinstance(above, yaml.MappingNode):
        return above
    merged = {str(key.value): (key, value) for key, value in below.value}
    for key, value in above.value:
        known = merged.get(str(key.value))
        merged[str(key.value)] = (key, value if known is None else _merge(known[1], value))
    return yaml.MappingNode(above.tag, list(merged.values()), above.start_mark, above.end_mark)


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check(node: yaml.Node, hint: Any, path: str, problems: list[str]) -> None:
    """Add what is wrong with ``node``: of its parts first, then, if they are good, of the whole."""
    before = len(problems)
    struct = struct_of(hint)
    if isinstance(node, yaml.MappingNode) and struct is not None:
        _check_mapping(node, struct, path, problems)
    elif isinstance(node, yaml.MappingNode) and get_origin(hint) is dict:
        for key, value in node.value:
            _check(value, get_args(hint)[1], _join(path, key), problems)
    elif isinstance(node, yaml.SequenceNode) and get_origin(hint) in (list, tuple):
        for index, value in enumerate(node.value):
            _check(value, get_args(hint)[0], f"{path}[{index}]", problems)
    if len(problems) == before:
        _check_whole(node, hint, path, problems)


def _check_whole(node: yaml.Node, hint: Any, path: str, problems: list[str]) -> None:
    try:
        value = _construct(node)
    except yaml.MarkedYAMLError as error:  # a tag that YAML does not know
        problems.append(f"{_at(node, path)}: {error.problem}")
        return
    except ValueError as error:  # what looks like a date and is none
        problems.append(f"{_at(node, path)}: {error}")
        return
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        if isinstance(node, yaml.MappingNode) and struct_of(hint) is not None:
            problems.append(_broken_rule(node, path, str(error)))
        else:
            problems.append(f"{_at(node, path)}: expected {describe_type(hint)}, got {describe_value(value)}")


def _broken_rule(node: yaml.MappingNode, path: str, sentence: str) -> str:
    """A rule over several fields of a section; a sentence ``field: …`` is placed at that field's line."""
    sentence = sentence.partition(" - at `$")[0]
    field, _, rest = sentence.partition(": ")
    for key, _value in node.value:
        if str(key.value) == field:
            return f"{_place(key)} {_join(path, key)}: {rest}"
    return f"{_at(node, path)}: {sentence}"


def _check_mapping(node: yaml.MappingNode, struct: type[msgspec.Struct], path: str, problems: list[str]) -> None:
    hints = get_type_hints(struct, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    node.value[:] = [pair for pair in node.value if not _is_empty_section(pair, fields, hints)]
    given = {str(key.value) for key, _ in node.value}
    for key, value in node.value:
        name, here = str(key.value), _join(path, key)
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            known = f"did you mean {close[0]}?" if close else f"known here: {', '.join(fields)}"
            problems.append(f"{_place(key)} {here}: unknown key; {known}")
        else:
            _check(value, hints[fields[name].name], here, problems)
    for name, field in fields.items():
        if field.required and name not in given:
            here = f"{path}.{name}" if path else name
            problems.append(f"{_place(node)} {here}: missing, expected {describe_type(hints[field.name])}")


def _is_empty_section(pair: tuple[yaml.Node, yaml.Node], fields: Mapping[str, Any], hints: Mapping[str, Any]) -> bool:
    field = fields.get(str(pair[0].value))
    return field is not None and pair[1].tag == _NULL and struct_of(hints[field.name]) is not None


def _at(node: yaml.Node, path: str) -> str:
    return f"{_place(node)} {path}" if path else _place(node)


def _join(path: str, key: yaml.Node) -> str:
    return f"{path}.{key.value}" if path else str(key.value)


def _place(node: yaml.Node) -> str:
    if node.start_mark.name.startswith(PLACE):
        return str(node.start_mark.name)
    return f"{node.start_mark.name}:{node.start_mark.line + 1}"
