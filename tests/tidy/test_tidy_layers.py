"""The rooms hold: imports point down, foreign clients stay where they belong, and the style's bounds are kept."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "dmpd").rglob("*.py"))

ALLOWED_IMPORTERS = {
    "confluent_kafka": ("dmpd/runtime/kafka", "dmpd/stream/"),
    "cryptography": ("dmpd/runtime/x509", "dmpd/runtime/authority"),
    "paho": ("dmpd/runtime/mqtt",),
    "sqlite3": ("dmpd/local_registry/store",),
    "psycopg": ("dmpd/runtime/database", "dmpd/cloud_registry/", "dmpd/access/store"),
    "psycopg_pool": ("dmpd/runtime/database", "dmpd/cloud_registry/", "dmpd/access/store"),
    "pyroute2": ("dmpd/local_registry/sources/",),
    "signal": ("dmpd/runtime/", "dmpd/stream/", "dmpd/lab/"),
}


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_layers_hold_by_import_linter():
    command = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", sorted(ALLOWED_IMPORTERS))
def test_foreign_clients_stay_in_their_rooms(module):
    offenders = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if module in imported_modules(path) and not str(path.relative_to(ROOT)).startswith(ALLOWED_IMPORTERS[module])
    ]
    assert offenders == []


def test_no_module_grows_beyond_a_second_idea():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: size for name, size in sizes.items() if size > 500} == {}


def test_no_exception_is_swallowed_in_silence():
    """An ``except`` whose whole body is ``pass`` neither handles, re-raises, nor counts and logs."""
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(child, ast.Pass) for child in node.body)
    ]
    assert offenders == []
