"""Show every setting in effect and where it comes from: file and line, a variable of the environment, or default.

What is printed is a configuration file itself, with the source as a comment. What looks like a secret (in
``kafka.options``) is not shown.

Exit codes: 0 shown, 78 the configuration cannot be used.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import yaml

from dmpd.cli.check_config import add_program_argument, schema_of
from dmpd.cli.config import add_any_config_argument
from dmpd.runtime import exit_codes
from dmpd.runtime.config import load_with_sources

HELP: Final = "every setting in effect, and where it comes from"
DEFAULT: Final = "default"
HIDDEN: Final = "(not shown)"
_SECRET: Final = ("password", "secret", "token")
_COMMENT_COLUMN: Final = 58


class Effective(msgspec.Struct, frozen=True):
    """One setting as it is in effect."""

    path: str
    value: Any
    source: str


def configure(parser: argparse.ArgumentParser) -> None:
    add_any_config_argument(parser)
    add_program_argument(parser)
    parser.add_argument("--json", action="store_true", help="for programs: a list of path, value, source")


def run(args: argparse.Namespace) -> int:
    config, given = load_with_sources(args.config, schema_of(args))
    sources = {one.path: one.source for one in given}
    found = list(effective(config, sources))
    print(msgspec.json.encode(found).decode() if args.json else "\n".join(_lines(found)))
    return exit_codes.OK


def effective(section: msgspec.Struct, sources: Mapping[str, str], prefix: str = "") -> Iterator[Effective]:
    """Every setting of ``section`` and of those below it, in the order of their declaration."""
    for field in msgspec.structs.fields(section):
        value, path = getattr(section, field.name), f"{prefix}{field.encode_name}"
        if isinstance(value, msgspec.Struct):
            yield from effective(value, sources, f"{path}.")
        else:
            yield Effective(path, _shown(value), sources.get(path, DEFAULT))


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: HIDDEN if any(word in name for word in _SECRET) else one for name, one in value.items()}
    return value


def _lines(found: list[Effective]) -> Iterator[str]:
    open_sections: list[str] = []
    for one in found:
        *sections, name = one.path.split(".")
        shared = 0
        while shared < min(len(sections), len(open_sections)) and sections[shared] == open_sections[shared]:
            shared += 1
        for depth in range(shared, len(sections)):
            yield f"{'  ' * depth}{sections[depth]}:"
        open_sections = sections
        line = f"{'  ' * len(sections)}{name}: {_flow(one.value)}"
        yield f"{line:<{_COMMENT_COLUMN}} # {one.source}"


def _flow(value: Any) -> str:
    """In one line, as YAML reads it back."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 30)
    return text.removesuffix("\n").removesuffix("\n...")
