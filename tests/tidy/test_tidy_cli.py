"""Every entry point imports, tells its version, and every command its help; wrong usage is 64 with a hint."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dmpd.cli import dmpctl, dmpd

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = [("dmpd", name) for name in dmpd.COMMANDS] + [("dmpctl", name) for name in dmpctl.COMMANDS]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name(program)
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("program", SCRIPTS)
def test_entry_point_tells_its_version(program):
    done = run(program, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{program} 0.")


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_command_explains_itself_with_its_exit_codes(program, command):
    done = run(program, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Exit codes:" in done.stdout


@pytest.mark.parametrize("program", SCRIPTS)
def test_unknown_command_is_64_and_lists_the_known(program):
    done = run(program, "frobnicate")
    assert done.returncode == 64
    assert "frobnicate" in done.stderr
    assert "check-config" in done.stderr


def test_wrong_configuration_is_78_with_its_line(tmp_path):
    file = tmp_path / "dmpd.yaml"
    file.write_text("kafka:\n  bootstrap_servers: 5\n")
    for program in SCRIPTS:
        done = run(program, "check-config", "--config", str(file))
        assert done.returncode == 78
        assert f"{file}:2 kafka.bootstrap_servers: expected text, got 5" in done.stderr


def test_a_rae_without_the_clouds_libraries_has_its_commands():
    """The Debian package brings the edge's dependencies only; what needs more says so and exits 69."""
    code = """
import sys
sys.modules.update(dict.fromkeys(["confluent_kafka", "psycopg", "psycopg_pool", "rich", "uvloop", "cryptography"]))
from dmpd.cli.dmpd import main
sys.exit(main(sys.argv[1:]))
"""
    for arguments, expected in ((["local-registry", "--help"], 0), (["check-config", "--help"], 0), (["bridge"], 69)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == expected, done.stderr
        assert "Traceback" not in done.stderr
