"""What the image installs: all that the cloud needs by the lock, pinned with hashes, and nothing of the tests."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))
import importlib
from dmpd.cli import dmpctl, dmpd
for module in [*dmpctl.COMMANDS.values(), *dmpd.COMMANDS.values()]:
    importlib.import_module(module)
from rich.console import Console
from rich.table import Table
table = Table("a")
table.add_row("b")
Console().print(table)
"""


def image_pins(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    spec = importlib.util.spec_from_file_location("image_pins", ROOT / "packaging" / "image_pins.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_that_is_needed_is_pinned_and_nothing_else(monkeypatch):
    pins = image_pins(monkeypatch)
    needed = set(pins.needed(pins.roots(), (ROOT / "requirements.lock").read_text()))
    assert {"confluent-kafka", "psycopg", "psycopg-binary", "typing-extensions", "uvloop"} <= needed
    assert not needed & ({"pytest", "hypothesis", "mypy", "ruff", "pyroute2", "pluggy"} | pins.UNUSED)
    said = subprocess.run(
        [sys.executable, ROOT / "packaging" / "image_pins.py"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert sum("==" in line and not line.startswith(" ") for line in said.splitlines()) == len(needed)
    assert said.count("--hash=sha256:") >= len(needed)


def test_every_command_imports_without_what_is_left_out(monkeypatch):
    absent = " ".join(name.replace("-py", "").replace("-", "_") for name in image_pins(monkeypatch).UNUSED)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, absent], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
