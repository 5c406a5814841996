"""The Debian package is that of this version, its pages are of commands that there are, its files say what is true."""

import configparser
import re
import subprocess
import tomllib
from pathlib import Path

from dmpd.cli import manual
from dmpd.local_registry.settings import LocalRegistrySettings
from dmpd.runtime.config import load, load_with_sources
from tests.support.program_files import EDGE, program_file

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "packaging/debian"
OF_THE_SITE = {"rae", "mqtt.host", "mqtt.port", "lan.interface", "lan.lease_file"}


def test_the_package_has_the_version_of_the_code():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert re.match(r"dmpd \(([^)]+)\) ", first)[1] == project["version"]


def test_every_command_of_a_rae_has_its_page_and_its_completion():
    pages = manual.pages()
    for program, (_about, commands) in manual.ON_A_RAE.items():
        page = pages[f"{program}.8"].replace("\\-", "-")
        assert [name for name in commands if f".SS {program} {name}\n" not in page] == []
        assert f"complete -o default -F _{program} {program}\n" in pages[f"{program}.completion"]
    assert "rae: " in pages["local-registry.yaml.reference"]
    assert "mqtt.host" in pages["local-registry.yaml.5"]


def test_the_conffile_has_what_differs_from_site_to_site_and_nothing_else(tmp_path):
    text = (DEBIAN / "local-registry.yaml").read_text()
    file = tmp_path / "local-registry.yaml"
    file.write_text(text)
    assert load(file, LocalRegistrySettings) == LocalRegistrySettings(), "as installed it says nothing"
    file.write_text(re.sub(r"^( *)# (\w+: )", r"\1\2", text, flags=re.MULTILINE))
    _, given = load_with_sources(file, LocalRegistrySettings)
    assert {one.path for one in given} == OF_THE_SITE


def test_the_packages_program_file_is_the_shipped_one_with_paths_and_a_user():
    with (ROOT / f"etc/supervisor/{EDGE}.conf").open() as shipped:
        made = subprocess.run(
            [DEBIAN / "program-file.sh"], stdin=shipped, capture_output=True, text=True, timeout=30, check=True
        ).stdout
    file = configparser.RawConfigParser()
    file.read_string(made)
    places = {
        "command": "/usr/bin/dmpd local-registry --config /etc/dmpd/local-registry.yaml",
        "stdout_logfile": "/var/log/dmpd/local-registry.log",
    }
    own = {"user": "dmpd", "directory": "/var/lib/dmpd", "umask": "027"}
    assert dict(file[f"program:{EDGE}"]) == dict(program_file(EDGE)) | places | own
