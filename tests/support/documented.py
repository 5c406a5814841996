"""Commands as the documentation has them, for tests to run one by one: what a reader copies must work."""

from tests.support import document_blocks
from tests.support.document_blocks import Block

SAID: set[str] = set()
"""What was asked for in this process."""


def block(page: str, beginning: str) -> str:
    """The one block of docs/``page`` that has a line beginning so, whole."""
    found = _block(page, beginning)
    SAID.update(found.commands)
    return found.text


def command(page: str, beginning: str, **words: str) -> str:
    """The one line of docs/``page``'s blocks that begins so, with placeholders replaced: each must be in it."""
    lines = [line for line in _block(page, beginning).commands if line.startswith(beginning)]
    assert len(lines) == 1, f"docs/{page}: {lines}"
    line = lines[0]
    SAID.add(line)
    for placeholder, word in words.items():
        assert placeholder in line, f"{placeholder} is not in {line!r}"
        line = line.replace(placeholder, word)
    return line


def unsaid(test: str, *pages: str) -> set[str]:
    """What stands in blocks of ``pages`` that ``test`` (a file of the repository) runs, and was not asked for."""
    blocks = [one for one in document_blocks.of_kind(test) if one.document.removeprefix("docs/") in pages]
    assert {one.document.removeprefix("docs/") for one in blocks} == set(pages), f"blocks that {test} is said to run"
    return {line for one in blocks for line in one.commands} - SAID


def _block(page: str, beginning: str) -> Block:
    blocks = [one for one in document_blocks.blocks() if one.document == f"docs/{page}"]
    found = [one for one in blocks if any(line.startswith(beginning) for line in one.commands)]
    assert len(found) == 1, f"docs/{page} has {len(found)} blocks with a line {beginning!r}"
    return found[0]
