"""Settings from the environment: ``DMPD__KAFKA__BOOTSTRAP_SERVERS=…`` is ``kafka.bootstrap_servers``, above all files.

For containers, where a variable is easier given than a file. Levels are parted by two underscores; the value is YAML,
but for a setting that takes text it is that text. Secrets cannot be given so: settings name their files only.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Final, get_args, get_type_hints

import msgspec
import yaml
from msgspec import inspect

PREFIX: Final = "DMPD__"
PLACE: Final = "environment "
"""Begins the name under which nodes and problems say where they come from."""
_MAP: Final = "tag:yaml.org,2002:map"
_TEXT: Final = "tag:yaml.org,2002:str"


def nodes_of(
    environment: Mapping[str, str], schema: type[msgspec.Struct], problems: list[str]
) -> list[yaml.MappingNode]:
    """A tree of one setting for each variable with our prefix, in the order of their names.

    What is no setting of ``schema`` is added to ``problems``.
    """
    found = []
    for name in sorted(one for one in environment if one.startswith(PREFIX)):
        path = name.removeprefix(PREFIX).lower().split("__")
        try:
            hint = _hint_of(schema, path)
            found.append(_node(f"{PLACE}{name}", path, environment[name], hint))
        except LookupError as error:
            problems.append(f"{PLACE}{name}: {error.args[0]}")
        except yaml.YAMLError as error:
            problems.append(f"{PLACE}{name}: not YAML: {getattr(error, 'problem', None) or error}")
    return found


def struct_of(hint: Any) -> type[msgspec.Struct] | None:
    """The Struct in ``hint``, alone or as an alternative to nothing."""
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def _hint_of(schema: type[msgspec.Struct], path: list[str]) -> Any:
    """The annotation of the setting at ``path``. Raises ``LookupError`` with a sentence."""
    section, hint = schema, None
    for depth, name in enumerate(path):
        names = {field.encode_name: field.name for field in msgspec.structs.fields(section)}
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            meant = PREFIX + "__".join([*path[:depth], *close]).upper()
            known = f"did you mean {meant}?" if close else f"known here: {', '.join(names)}"
            raise LookupError(f"no such setting; {known}")
        hint = get_type_hints(section, include_extras=True)[names[name]]
        inner = struct_of(hint)
        if inner is None and depth < len(path) - 1:
            raise LookupError(f"{'.'.join(path[: depth + 1])} has no settings below it; give it whole, as YAML")
        section = inner or section
    return hint


def _takes_text(wanted: inspect.Type) -> bool:
    """Whether text is taken as it is, so that ``0123`` or ``yes`` is no number and no truth."""
    if isinstance(wanted, inspect.Metadata):
        return _takes_text(wanted.type)
    if isinstance(wanted, inspect.UnionType):
        return any(_takes_text(one) for one in wanted.types)
    return isinstance(wanted, inspect.StrType)


def _node(place: str, path: list[str], value: str, hint: Any) -> yaml.MappingNode:
    mark = yaml.Mark(place, 0, 0, 0, None, 0)
    node: yaml.Node
    if _takes_text(inspect.type_info(hint)):
        node = yaml.ScalarNode(_TEXT, value, mark, mark)
    else:
        loader = yaml.SafeLoader(value)
        loader.name = place
        try:
            node = loader.get_single_node() or yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        finally:
            loader.dispose()
    for name in reversed(path):
        node = yaml.MappingNode(_MAP, [(yaml.ScalarNode(_TEXT, name, mark, mark), node)], mark, mark)
    assert isinstance(node, yaml.MappingNode)
    return node
