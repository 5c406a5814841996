"""The commands that the documents tell people to type, block by block, with what a comment above each says of it.

``<!-- run: KIND -->`` names the test that runs the block as it stands; ``<!-- not run here: WHY; TEST -->`` says why
none can, and which test does the same otherwise.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?: *<!-- (?P<mark>[^\n]*?) -->\n)?(?P<indent>[ ]*)```[a-z]*\n(?P<text>.*?)^ *```", re.DOTALL | re.MULTILINE
)
_PROGRAMS = (
    *("apt", "cp", "curl", "dmpd", "dmpctl", "docker", "export", "install", "make", "openssl"),
    *(r"packaging/\S+", "pg_dump", "supervisord", "supervisorctl"),
)
_COMMAND = re.compile(rf"^ *(?:{'|'.join(_PROGRAMS)}) +[\w./$-]", re.MULTILINE)


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
    return [
        Block(str(path.relative_to(ROOT)), match["mark"] or "", match["text"])
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        for match in _BLOCK.finditer(path.read_text())
        if _COMMAND.search(match["text"])
    ]


def of_kind(kind):
    return [block for block in blocks() if block.mark == f"run: {kind}"]
