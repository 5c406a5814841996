"""What the image installs, as lines of requirements.lock with their hashes: the cloud's dependencies and theirs.

``image_pins.py`` prints them; stdlib only, because the image's build runs it before anything is installed.
"""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from wheels import pins

ROOT: Final = Path(__file__).resolve().parents[1]
UNUSED: Final = {"pygments", "markdown-it-py", "mdurl"}
"""Rich wants them for highlighting and for Markdown, which dmpd does not ask of it: 10 MB."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_VIA: Final = re.compile(r"^ +#(?: via)? +([A-Za-z0-9._-]+)$")


def needed(roots: Iterable[str], lock: str) -> list[str]:
    """``roots`` and everything that they pull in, by the lock's ``# via`` comments."""
    wanted = set(roots)
    vias: dict[str, set[str]] = {}
    name = ""
    for line in lock.splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            name = line.partition("==")[0].strip().lower()
        elif found := _VIA.match(line):
            vias.setdefault(name, set()).add(found[1].lower())
    while more := {one for one, by in vias.items() if by & wanted} - wanted - UNUSED:
        wanted |= more
    return sorted(wanted)


def roots() -> list[str]:
    """Of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["cloud"]]
    return [_NAME.match(one)[0].lower() for one in lines]  # type: ignore[index]


if __name__ == "__main__":
    print(pins(needed(roots(), (ROOT / "requirements.lock").read_text())), end="")
