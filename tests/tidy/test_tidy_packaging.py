"""The Debian package is that of this version, and its pages are of commands that there are."""

import re
import tomllib
from pathlib import Path

from dmpd.cli import manual

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_has_the_version_of_the_code():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = (ROOT / "packaging/debian/changelog").read_text().splitlines()[0]
    assert re.match(r"dmpd \(([^)]+)\) ", first)[1] == project["version"]


def test_every_command_of_a_rae_has_its_page_and_its_completion():
    pages = manual.pages()
    for program, (_about, commands) in manual.ON_A_RAE.items():
        page = pages[f"{program}.8"].replace("\\-", "-")
        assert [name for name in commands if f".SS {program} {name}\n" not in page] == []
        assert f"complete -o default -F _{program} {program}\n" in pages[f"{program}.completion"]
    assert "rae: " in pages["local-registry.yaml.reference"]
    assert "mqtt.host" in pages["local-registry.yaml.5"]
