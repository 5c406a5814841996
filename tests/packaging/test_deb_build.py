"""The package as a file: the same in each build, clean by lintian, with what it must carry and nothing else."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import debian, document_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "dmpd-local-registry"
DOC = f"usr/share/doc/{NAME}"
BYTES_MAX = 4_000_000
BUILD_S = 180
BESIDE = 2
"""Other tests run beside it."""


def test_it_is_built_by_the_documented_commands_in_time_and_says_how_far_it_is():
    (block,) = document_blocks.of_kind("tests/packaging/test_deb_build.py")
    assert block.commands == list(debian.BUILDS.values())
    for arch in debian.BUILDS:
        deb = debian.built(arch)
        said = [line for line in (deb.parent / "said").read_text().splitlines() if line.startswith("deb: ")]
        assert len(said) == 3, said
        took_s = int(said[-1].split()[-2])
        print(f"deb: {arch} in {took_s} s, {deb.stat().st_size / 1e6:.2f} MB")
        assert took_s <= BUILD_S * max(BESIDE, float((deb.parent / "slowness").read_text()))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    debian.run("dpkg-deb", "-x", debian.built("amd64"), folder)
    return folder


def test_two_builds_are_the_same(tmp_path):
    first, second = debian.built("amd64"), debian.build_again("amd64", tmp_path)
    assert first.parent != second.parent
    assert hashlib.sha256(first.read_bytes()).hexdigest() == hashlib.sha256(second.read_bytes()).hexdigest()


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_lintian_finds_nothing(arch):
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on=error,warning", debian.built(arch)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_it_is_small(arch):
    assert debian.built(arch).stat().st_size <= BYTES_MAX


def test_the_only_conffile_is_the_sites(tmp_path):
    debian.run("dpkg-deb", "-e", debian.built("amd64"), tmp_path)
    assert (tmp_path / "conffiles").read_text().split() == ["/etc/dmpd/local-registry.yaml"]


def test_byte_code_is_made_by_whichever_python_is_there(tmp_path):
    """On Debian 13 py3compile finds nothing between 3.11 and 3.13, as dh_python3 would have it, and dpkg gives up."""
    debian.run("dpkg-deb", "-e", debian.built("amd64"), tmp_path)
    lines = [line.strip() for line in (tmp_path / "postinst").read_text().splitlines() if "py3compile" in line]
    assert lines[1:] == ["py3compile -p dmpd-local-registry /usr/lib/dmpd"], lines


def test_everything_vendored_has_its_licence_and_its_place_in_the_sbom(tree):
    vendored = {path.name.partition("-")[0] for path in (tree / "usr/lib/dmpd/vendor").glob("*.dist-info")}
    assert vendored == {"msgspec", "orjson", "paho_mqtt", "prometheus_client", "pyroute2"}
    sbom = json.loads((tree / DOC / "sbom.cdx.json").read_text())
    wheels = [one for one in sbom["components"] if one["purl"].startswith("pkg:pypi/")]
    assert {one["name"].replace("-", "_") for one in wheels} == vendored
    pinned = (debian.ROOT / "requirements.lock").read_text()
    assert all(f"sha256:{one['hashes'][0]['content']}" in pinned for one in wheels)
    assert [one for one in sbom["components"] if one["purl"].startswith("pkg:cargo/")], "what orjson has compiled in"
    named = {
        f"{path.parent.name.partition('-')[0]}/{file.replace('/', '-')}"
        for path in (tree / "usr/lib/dmpd/vendor").glob("*.dist-info/METADATA")
        for file in re.findall(r"^License-File: (.+)$", path.read_text(), re.MULTILINE)
    }
    assert {one.partition("/")[0] for one in named} == vendored
    assert {str(path.relative_to(tree / DOC / "licenses")) for path in (tree / DOC / "licenses").glob("*/*")} == named
    copyright_text = (tree / DOC / "copyright").read_text()
    folders = [path.name for path in (tree / "usr/lib/dmpd/vendor").iterdir() if path.suffix != ".dist-info"]
    assert [one for one in folders if f"usr/lib/dmpd/vendor/{one}/*" not in copyright_text] == []


def test_the_clouds_libraries_stay_out(tree):
    cloud = {"confluent_kafka", "psycopg", "psycopg_pool", "rich", "uvloop", "yaml", "cryptography"}
    assert cloud & {path.name for path in (tree / "usr/lib/dmpd/vendor").iterdir()} == set()


def test_the_program_file_names_no_environment_and_has_its_user(tree):
    lines = (tree / "usr/share/dmpd/supervisor/local-registry.conf").read_text().splitlines()
    assert "command=/usr/bin/dmpd local-registry --config /etc/dmpd/local-registry.yaml" in lines
    assert "user=dmpd" in lines
    assert not [line for line in lines if "ENV_" in line]


def test_man_pages_format_without_a_warning(tree):
    pages = sorted(tree.glob("usr/share/man/man*/*.gz"))
    assert [page.name for page in pages] == ["local-registry.yaml.5.gz", "dmpctl.8.gz", "dmpd.8.gz"]
    for page in pages:
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page
        assert len(done.stdout) > 1000


@pytest.mark.parametrize("program", ["dmpd", "dmpctl"])
def test_bash_completes_commands_and_options(tree, program):
    script = tree / f"usr/share/bash-completion/completions/{program}"

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _{program} {program} '{words[-1]}' '{words[-2]}'"
        said = debian.run("bash", "-euc", f'. {script}; {code}; printf "%s\\n" "${{COMPREPLY[@]}}"')
        return set(said.split())

    assert completed(program, "che") == {"check-config"}
    assert completed(program, "check-config", "--con") == {"--config"}
