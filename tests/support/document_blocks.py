"""The commands that the documents tell people to type, block by block, with what a comment above each says of it.

``<!-- run: KIND -->`` names what runs the block as it stands: a kind of ``tests/packaging/test_documented_commands.py``
and its like, or a test's file. ``<!-- not run here: WHY; TEST -->`` says why none can, and which test does the same
otherwise. A fenced block holds commands unless its language says what else it is, so that none is left out by chance.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
NO_COMMANDS = {"conf", "json", "python", "text", "yaml"}
_FENCE = re.compile(r"^ *(?:```|~~~)", re.MULTILINE)
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>[a-z]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    document: str
    mark: str
    text: str

    @property
    def commands(self):
        """One a line, continued lines joined, comments cut."""
        joined = self.text.replace("\\\n", " ")
        return [line.partition("  #")[0].strip() for line in joined.splitlines() if line.strip()]


def blocks():
    """All that hold commands."""
    return [block for path in DOCUMENTS for block in blocks_of(str(path.relative_to(ROOT)), path.read_text())]


def blocks_of(document, text):
    """Those of one document. Raises ``AssertionError`` if a fence opens or closes in a way that is not understood."""
    found = list(_BLOCK.finditer(text))
    fences = len(_FENCE.findall(text))
    assert fences == 2 * len(found), f"{document}: {fences} fences, but {len(found)} blocks were understood"
    return [
        Block(document, match["mark"] or "", match["text"]) for match in found if match["language"] not in NO_COMMANDS
    ]


def of_kind(kind):
    """``kind``: as its mark says, for a test its file's path in the repository."""
    return [block for block in blocks() if block.mark == f"run: {kind}"]
