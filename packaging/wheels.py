"""The wheels that the Debian package vendors, by the pins and hashes of requirements.lock.

``wheels.py ARCH FOLDER`` fills FOLDER for ``amd64`` or ``arm64``, for both CPythons of Debian 12 and 13; needs PyPI once,
nothing when FOLDER is complete. Run it with a Python that has pip.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
PYTHONS: Final = ("3.11", "3.13")
"""Of Debian 12 and 13."""
OF_DEBIAN: Final = {"pyyaml"}
"""The package depends on Debian's own."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def vendored() -> list[str]:
    """What the edge needs and Debian does not bring, by pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["edge"]]
    names = {_NAME.match(one)[0].lower() for one in wanted}  # type: ignore[index]
    return sorted(names - OF_DEBIAN)


def pins(names: list[str]) -> str:
    """The lines of requirements.lock for ``names``, hashes included. Raises ``SystemExit`` if one is not pinned."""
    blocks: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if not line.startswith((" ", "#")):
            name = line.partition("==")[0].strip().lower()
        if not line.lstrip().startswith("#"):
            blocks.setdefault(name, []).append(line)
    if missing := [one for one in names if one not in blocks]:
        raise SystemExit(f"wheels: not pinned in requirements.lock: {', '.join(missing)}")
    return "\n".join(line for one in names for line in blocks[one]) + "\n"


def download(arch: str, folder: Path) -> None:
    """Fill ``folder``. It is complete, or absent: an interrupted download leaves nothing that looks whole."""
    lines = pins(vendored())
    stamp = folder / "requirements.txt"
    if stamp.exists() and stamp.read_text() == lines:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        new = Path(name) / folder.name
        new.mkdir()
        (new / "requirements.txt").write_text(lines)
        for python in PYTHONS:
            _pip_download(arch, python, new)
        if folder.exists():
            folder.rename(Path(name) / "old")
        new.rename(folder)


def _pip_download(arch: str, python: str, folder: Path) -> None:
    machine = MACHINES[arch]
    platforms = [f"--platform=manylinux_2_{glibc}_{machine}" for glibc in (17, 28)]
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    target = [f"--dest={folder}", "--implementation=cp", f"--python-version={python}", *abis, *platforms]
    target.append(f"--platform=manylinux2014_{machine}")
    rules = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    command = [sys.executable, "-m", "pip", "download", *rules, *target, "-r", str(folder / "requirements.txt")]
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in MACHINES:
        raise SystemExit("usage: wheels.py amd64|arm64 FOLDER")
    download(sys.argv[1], Path(sys.argv[2]))
