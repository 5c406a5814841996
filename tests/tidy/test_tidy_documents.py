"""What the documents tell people to type: each block says how it is run, each command that a sentence names exists."""

import argparse
import importlib
import re

import pytest

from dmpd.cli import dmpctl, dmpd
from tests.support import document_blocks
from tests.support.document_blocks import ROOT

KINDS = {"certificates", "image", "lab", "lab-database", "lab-restore", "lan", "signing"}
"""Of blocks; who runs each: ``of_kind("KIND")`` in tests/packaging."""
PROGRAMS = {"dmpd": dmpd.COMMANDS, "dmpctl": dmpctl.COMMANDS}
_INLINE = re.compile(r"`((?:dmpd|dmpctl|make) [^`\n]+)`")
_TEST = re.compile(r"tests/[\w./]+\.py")
_SOURCES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "etc/**/*.*", "packaging/debian/*", "packaging/docker/*")


@pytest.mark.parametrize("block", document_blocks.blocks(), ids=lambda block: block.commands[0][:40])
def test_a_block_says_how_it_is_run(block):
    how, _, rest = block.mark.partition(": ")
    assert how in ("run", "not run here"), f"{block.document}: no test runs\n{block.text}"
    if how == "not run here":
        assert _TEST.findall(rest), "which test does the same?"
        assert all((ROOT / test).exists() for test in _TEST.findall(rest))
    elif rest not in KINDS:
        runner = (ROOT / rest).read_text()
        assert "document_blocks.of_kind(" in runner or "documented.unsaid(" in runner


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_of_blocks_has_who_runs_it_and_blocks(kind):
    runners = [path for path in (ROOT / "tests/packaging").glob("*.py") if f'of_kind("{kind}")' in path.read_text()]
    assert runners
    assert document_blocks.of_kind(kind)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<!-- run: lab -->\n```\ndmpd x\n```\n", [("run: lab", "dmpd x\n")]),
        ("```\nanything at all\n```\n", [("", "anything at all\n")]),
        ("1. so\n\n   ```sh\n   x\n   ```\n", [("", "   x\n")]),
        ("```yaml\na: 1\n```\n\n```\nb\n```\n", [("", "b\n")]),
    ],
)
def test_no_block_is_left_out_because_of_what_stands_in_it(text, found):
    assert [(block.mark, block.text) for block in document_blocks.blocks_of("x", text)] == found


@pytest.mark.parametrize("text", ["```\nnever closed\n", "~~~\nx\n~~~\n", "```\nx\n  ```\n"])
def test_a_fence_that_is_not_understood_is_said(text):
    with pytest.raises(AssertionError, match="fences"):
        document_blocks.blocks_of("x", text)


def named_commands():
    """Each command that a sentence names, with its place; alternatives apart."""
    for pattern in _SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            text = path.read_text(errors="replace") if path.is_file() else ""
            for said in _INLINE.findall(text):
                yield str(path.relative_to(ROOT)), said


def parsers_of(program, words):
    """The parser of a command and those below it, chosen by ``words``; what is left of them."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(PROGRAMS[program][words[0]]).configure(parser)
    chosen, left = [parser], words[1:]
    while left and (verbs := _verbs(chosen[-1])) and left[0] in verbs:
        chosen.append(verbs[left[0]])
        left = left[1:]
    return chosen, left


def _verbs(parser):
    groups = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return groups[0] if groups else {}


def wrong(said):
    """What of a named command is not so, or ``None``. Capitals and dots stand for what a reader puts there."""
    program, *words = re.sub(r"[\[\]…]", " ", said.replace("\\", "")).split()
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return None if words[0] in targets else words[0]
    names = said.split(" ", 1)[1].split(" | ") if words[0] in PROGRAMS[program] else [words[0]]
    if not re.fullmatch(r"[a-z-]+", words[0]):
        return None
    if words[0] not in PROGRAMS[program]:
        return words[0]
    chosen, left = parsers_of(program, words)
    known = {option for parser in chosen for action in parser._actions for option in action.option_strings}
    if (verbs := _verbs(chosen[-1])) and left and re.fullmatch(r"[a-z-]+", left[0]):
        return left[0]
    others = [word for name in names[1:] for word in name.split()[:1] if re.fullmatch(r"[a-z-]+", word)]
    siblings = set(PROGRAMS[program]) | {verb for parser in chosen for verb in _verbs(parser)} | set(verbs)
    if unknown := [word for word in others if word not in siblings]:
        return unknown[0]
    options = [word.partition("=")[0] for word in left if word.startswith("--")]
    return next((option for option in options if option not in known), None)


def test_every_command_that_a_sentence_names_exists():
    found = list(named_commands())
    assert len(found) > 50
    assert [(where, said, wrong(said)) for where, said in found if wrong(said)] == []


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("dmpctl frobnicate", "frobnicate"),
        ("dmpctl stream frob", "frob"),
        ("dmpctl dead-letters list --frob", "--frob"),
        ("dmpctl devices | frob", "frob"),
        ("make frob", "frob"),
        ("dmpctl dead-letters list [--reason R] [--since 2h]", None),
        ("dmpd lab up --lan --devices N", None),
    ],
)
def test_what_does_not_exist_is_told(said, what):
    assert wrong(said) == what
