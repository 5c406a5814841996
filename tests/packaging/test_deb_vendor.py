"""The wheels of several CPythons go over each other, or the build fails: none may hide what another brings."""

import importlib.util
import json
import zipfile

import pytest

from tests.support.debian import ROOT

_SPEC = importlib.util.spec_from_file_location("vendor", ROOT / "packaging/debian/vendor.py")
vendor = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(vendor)

METADATA = "Name: Thing\nVersion: 1.0\nLicense-Expression: MIT\n\n"


def wheel(folder, tag, other=None):
    """A wheel of ``thing`` for one CPython."""
    path = folder / f"thing-1.0-{tag}-{tag}-any.whl"
    content = {
        "thing-1.0.dist-info/METADATA": METADATA,
        "thing-1.0.dist-info/WHEEL": f"Tag: {tag}\n",
        "thing-1.0.dist-info/licenses/LICENSE": "do as you like\n",
        f"thing/core.{tag}.so": tag,
        "thing/__init__.py": "#!/usr/bin/env python\nX = 1\n",
        **(other or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)


def unpack(folder):
    (folder / "doc").mkdir()
    vendor.main(folder / "wheels", folder / "vendor", folder / "doc", "package", "1")


@pytest.fixture
def wheels(tmp_path):
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def test_compiled_modules_lie_beside_each_other_and_the_rest_is_once(wheels, tmp_path):
    wheel(wheels, "cp311")
    wheel(wheels, "cp313")
    unpack(tmp_path)
    found = {str(path.relative_to(tmp_path / "vendor")) for path in (tmp_path / "vendor").rglob("*") if path.is_file()}
    modules = {"thing/__init__.py", "thing/core.cp311.so", "thing/core.cp313.so"}
    assert found == {*modules, "thing-1.0.dist-info/METADATA"}
    assert (tmp_path / "vendor/thing/__init__.py").read_text() == "#\nX = 1\n", "no program, so no interpreter's line"
    assert (tmp_path / "doc/licenses/thing/LICENSE").read_text() == "do as you like\n"
    components = json.loads((tmp_path / "doc/sbom.cdx.json").read_text())["components"]
    assert [one["bom-ref"] for one in components] == [path.name for path in sorted(wheels.iterdir())]


def test_a_difference_is_told_and_ends_the_build(wheels, tmp_path):
    wheel(wheels, "cp311")
    wheel(wheels, "cp313", {"thing/__init__.py": "X = 2\n"})
    with pytest.raises(
        SystemExit, match=r"thing/__init__\.py is not the same in thing-1\.0-cp311.* and thing-1\.0-cp313"
    ):
        unpack(tmp_path)


def test_no_wheels_are_no_package(wheels, tmp_path):
    with pytest.raises(SystemExit, match="no wheels"):
        unpack(tmp_path)
