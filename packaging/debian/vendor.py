"""Unpacks the wheels into one folder, and writes what they are: SBOM and licence texts. Run by debian/rules, offline.

``vendor.py WHEELS VENDOR DOC NAME VERSION``. The wheels of several CPythons go over each other: compiled modules carry
their ABI in the name, all else must be the same in each, or the build fails. Only what tells of a wheel itself differs
(tags, checksums, its SBOM), and is not installed.
"""

import email
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

DIFFERS: Final = re.compile(r"\.dist-info/(?:WHEEL|RECORD|sboms/.*)$")
NOT_SHIPPED: Final = re.compile(
    r"\.dist-info/(?:WHEEL|RECORD|top_level\.txt|licenses/.*|sboms/.*)$|\.(?:pyi|c|h|pyx|pxd)$"
)
LICENCE: Final = re.compile(r"\.dist-info/licenses/(.+[^/])$")
SBOM: Final = re.compile(r"\.dist-info/sboms/.+\.json$")
_SHEBANG: Final = re.compile(rb"\A#![^\n]*")


def main(wheels: Path, vendor: Path, doc: Path, name: str, version: str) -> None:
    files: dict[str, tuple[bytes, str]] = {}
    components, inner = [], []
    for wheel in sorted(wheels.glob("*.whl")):
        own = read(wheel, files)
        components.append(component(wheel, own))
        inner += [json.loads(content) for path, content in sorted(own.items()) if SBOM.search(path)]
    if not components:
        raise SystemExit(f"vendor: no wheels in {wheels}")
    write(files, vendor, doc / "licenses")
    (doc / "sbom.cdx.json").write_text(json.dumps(sbom(name, version, components, inner), indent=1) + "\n")


def read(wheel: Path, files: dict[str, tuple[bytes, str]]) -> dict[str, bytes]:
    """Add the wheel's files to ``files``; returns its own. Raises ``SystemExit`` if another wheel has it otherwise."""
    own = {}
    with zipfile.ZipFile(wheel) as archive:
        for path in archive.namelist():
            if path.endswith("/"):
                continue
            own[path] = content = archive.read(path)
            known, known_of = files.setdefault(path, (content, wheel.name))
            if known != content and not DIFFERS.search(path):
                raise SystemExit(f"vendor: {path} is not the same in {known_of} and {wheel.name}")
    return own


def write(files: dict[str, tuple[bytes, str]], vendor: Path, licences: Path) -> None:
    for path, (content, _) in files.items():
        if licence := LICENCE.search(path):
            package = path.partition("-")[0]
            target = licences / package / licence[1].replace("/", "-")
        elif NOT_SHIPPED.search(path):
            continue
        else:
            target = vendor / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Modules that nobody runs as programs need no interpreter's line.
        target.write_bytes(_SHEBANG.sub(b"#", content) if path.endswith(".py") else content)


def component(wheel: Path, own: dict[str, bytes]) -> dict[str, Any]:
    """The wheel as a component of CycloneDX."""
    path = next(path for path in own if path.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(own[path])
    name, version = metadata["Name"], metadata["Version"]
    return {
        "type": "library",
        "bom-ref": wheel.name,
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower()}@{version}?file_name={wheel.name}",
        "licenses": [{"expression": metadata["License-Expression"]}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
    }


def sbom(name: str, version: str, components: list[dict[str, Any]], inner: list[dict[str, Any]]) -> dict[str, Any]:
    """CycloneDX 1.5, without a time and a serial number so that it is the same in each build.

    ``inner`` are SBOMs that wheels bring of what is compiled into them.
    """
    compiled_in = {
        str(one.get("purl") or (one["name"], one.get("version"))): {
            key: one[key] for key in ("type", "name", "version", "purl", "licenses") if key in one
        }
        for bom in inner
        for one in bom.get("components", [])
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": [*components, *(compiled_in[key] for key in sorted(compiled_in))],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
