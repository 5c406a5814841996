"""Writes what the Debian package installs beside the code: ``python -m dmpd.cli.manual FOLDER``.

Man pages and bash completion of the commands that work on a RAE, from their parsers and docstrings; the commented
reference of its configuration, and its man page, from the schema. Nothing of it is kept in the repository.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from dmpd import __version__
from dmpd.cli import dmpctl, reference_words

from dmpd.cli import dmpd as dmpd_program  # isort: skip
from dmpd.local_registry.settings import LocalRegistrySettings

ON_A_RAE: Final = {
    "dmpd": ("Device management for test labs: the Local Registry", ("local-registry", "check-config", "print-config")),
    "dmpctl": ("ask and steer the Local Registry of this router", ("enroll", "local", "check-config", "print-config")),
}
_COMMANDS: Final = {"dmpd": dmpd_program.COMMANDS, "dmpctl": dmpctl.COMMANDS}
_CONFIGURATION: Final = "/etc/dmpd/local-registry.yaml"
_WIDTH: Final = 100


class _Verb(NamedTuple):
    """A command, or a command of a command, with what may follow it."""

    words: str
    parser: argparse.ArgumentParser


def pages() -> dict[str, str]:
    """Each file's name and text."""
    found = {f"{program}.8": man_page(program) for program in ON_A_RAE}
    found |= {f"{program}.completion": completion(program) for program in ON_A_RAE}
    found["local-registry.yaml.5"] = settings_page()
    found["local-registry.yaml.reference"] = settings_reference()
    return found


def man_page(program: str) -> str:
    about, names = ON_A_RAE[program]
    parts = [_head(program, 8), f".SH NAME\n{program} \\- {_roff(about)}\n"]
    parts.append(f".SH SYNOPSIS\n.B {program}\n.I COMMAND\n[\\fIoption\\fR ...]\n.SH COMMANDS\n")
    for name in names:
        module = importlib.import_module(_COMMANDS[program][name])
        parts.append(f".SS {program} {_roff(name)}\n{_paragraphs(module.__doc__ or '')}")
        for verb in _verbs(program, name, module):
            parts.append(f".PP\n.B {_roff(verb.words)}\n")
            parts += [f".TP\n{_roff(label)}\n{_roff(text)}\n" for label, text in _arguments(verb.parser)]
    parts.append(f".SH FILES\n.TP\n.I {_CONFIGURATION}\n{_roff('see local-registry.yaml(5)')}\n")
    parts.append(".TP\n.I /var/lib/dmpd\nthe database, identity.json, the lock, control.sock\n")
    others = ", ".join(f".BR {one} (8)" for one in ON_A_RAE if one != program)
    parts.append(f".SH SEE ALSO\n{others},\n.BR local\\-registry.yaml (5),\n.BR supervisorctl (1)\n")
    return "".join(parts)


def settings_page() -> str:
    parts = [
        _head("local-registry.yaml", 5),
        ".SH NAME\nlocal\\-registry.yaml \\- configuration of dmpd's Local Registry\n",
    ]
    parts.append(f".SH SYNOPSIS\n.I {_CONFIGURATION}\n.br\n.I /etc/dmpd/local\\-registry.d/*.yaml\n")
    text = (
        "The files of the folder are read after the file, in the order of their names; maps merge, all else replaces."
    )
    parts.append(f".SH DESCRIPTION\n{text}\nA dot in a name is a level of the file.\n.SH SETTINGS\n")
    for path, accepts, value, meaning in reference_words.settings_rows(LocalRegistrySettings):
        rule = _roff(f"({accepts}; default {value})".replace("`", ""))
        parts.append(f".TP\n.B {_roff(path)}\n{_roff(meaning.replace('`', ''))}\n{rule}\n")
    parts.append(".SH SEE ALSO\n.BR dmpd (8),\n.BR dmpctl (8)\n")
    return "".join(parts)


def settings_reference() -> str:
    """Every setting at its default, commented out, as YAML."""
    lines = ["# Every setting of dmpd's Local Registry at its default. Take over what differs here.", ""]
    section: list[str] = []
    for path, accepts, value, meaning in reference_words.settings_rows(LocalRegistrySettings):
        *sections, name = path.split(".")
        for depth, word in enumerate(sections):
            if section[depth : depth + 1] != [word]:
                lines += ["", f"{'  ' * depth}{word}:"]
        section = sections
        indent = "  " * len(sections)
        lines += [f"{indent}# {line}" for line in _wrapped(f"{meaning} ({accepts})".replace("`", ""))]
        default = value.strip("`") if value.startswith("`") else {"empty": "[]", "required": "…"}.get(value, "null")
        lines.append(f"{indent}# {name}: {default}")
    return "\n".join(lines) + "\n"


def completion(program: str) -> str:
    """Words for bash: the commands, and for each what may follow it."""
    lines = [f"# bash completion of {program}", f"_{program}() {{", '    local words="" at=""; local -a line']
    lines += ['    line=("${COMP_WORDS[@]:1:COMP_CWORD-1}")', '    at="${line[*]} "', "    case $at in"]
    top = " ".join(ON_A_RAE[program][1])
    for name in ON_A_RAE[program][1]:
        module = importlib.import_module(_COMMANDS[program][name])
        for verb in reversed(list(_verbs(program, name, module))):
            words = [option for action in _plain(verb.parser) for option in action.option_strings[-1:]]
            words += [word for inner in _inner(verb.parser) for word in inner.choices]
            lines.append(f'    "{verb.words.partition(" ")[2]} "*) words="{" ".join(words)}" ;;')
    lines += [f'    " ") words="{top} --version --help" ;;', "    esac"]
    lines += ['    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")', "}"]
    lines.append(f"complete -o default -F _{program} {program}")  # default: files, where no word fits
    return "\n".join(lines) + "\n"


def _verbs(program: str, name: str, module: ModuleType) -> Iterator[_Verb]:
    parser = argparse.ArgumentParser(prog=f"{program} {name}", add_help=False)
    module.configure(parser)
    yield from _below(_Verb(f"{program} {name}", parser))


def _below(verb: _Verb) -> Iterator[_Verb]:
    yield verb
    for inner in _inner(verb.parser):
        for name, parser in inner.choices.items():
            yield from _below(_Verb(f"{verb.words} {name}", parser))


def _inner(parser: argparse.ArgumentParser) -> "list[argparse._SubParsersAction[argparse.ArgumentParser]]":
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 - argparse tells it nowhere else


def _plain(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions  # noqa: SLF001 - as above
        if not isinstance(action, argparse._SubParsersAction) and action.help != argparse.SUPPRESS  # noqa: SLF001
    ]


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in _plain(parser):
        value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        value = value if isinstance(value, str) else " ".join(value)
        label = ", ".join(action.option_strings)
        yield (f"{label} {value}".strip() if label else value), action.help or ""


def _head(name: str, section: int) -> str:
    return f'.TH {_roff(name).upper()} {section} "" "dmpd {__version__}" "dmpd"\n'


def _paragraphs(docstring: str) -> str:
    found = re.split(r"\n\s*\n", docstring.strip())
    return "".join(f".PP\n{_roff(' '.join(one.split()).replace('``', ''))}\n" for one in found)


def _roff(text: str) -> str:
    """Text that troff takes literally."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("%%", "%")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _wrapped(text: str) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= _WIDTH:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    yield line


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
