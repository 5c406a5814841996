"""Commands as the documentation has them, for tests to run: what a reader copies must work."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(page: str, beginning: str) -> str:
    """The one fenced block of ``page`` that has a line beginning so."""
    found = [one for one in _BLOCK.findall((DOCS / page).read_text()) if f"\n{beginning}" in f"\n{one}"]
    assert len(found) == 1, f"docs/{page} has {len(found)} blocks with a line {beginning!r}"
    return str(found[0])


def command(page: str, beginning: str, **words: str) -> str:
    """The one line of ``page``'s blocks that begins so, with placeholders replaced: each must be in it."""
    lines = [line for line in block(page, beginning).splitlines() if line.startswith(beginning)]
    assert len(lines) == 1, f"docs/{page}: {lines}"
    line = lines[0].partition("  #")[0]
    for placeholder, word in words.items():
        assert placeholder in line, f"{placeholder} is not in {line!r}"
        line = line.replace(placeholder, word)
    return line
