"""What the package brings can be loaded where it is meant to run: CPython 3.13, and on arm64 (under qemu).

CPython 3.11 on amd64 is where ``test_deb_lifecycle`` has the daemon run.
"""

import shutil
from pathlib import Path

import pytest

from tests.support import debian

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = "rae: R1\nlan: {interface: br-lan, lease_file: /var/lib/misc/dnsmasq.leases}\n"


def in_root(root: Path, *argv: str) -> str:
    return debian.run("chroot", root, *argv, timeout_s=300)


@pytest.mark.parametrize(
    ("suite", "python", "arch", "machine"),
    [
        ("trixie", "3.13", "amd64", "x86_64"),
        ("bookworm", "3.11", "arm64", "aarch64"),
    ],
)
def test_modules_import_and_a_configuration_is_read(suite, python, arch, machine):
    include = ["python3", f"libpython{python}-stdlib", "python3-yaml"]
    tar = debian.root_tar(suite, variant="extract", arch=arch, include=include)
    with debian.unpacked(tar) as root:
        debian.run("dpkg-deb", "-x", debian.built(arch), root)
        interpreter = [f"/usr/bin/python{python}"]
        if arch != "amd64":
            qemu = "/usr/bin/qemu-aarch64-static"
            shutil.copy2(qemu, root / qemu[1:])
            interpreter = [qemu, *interpreter]
        assert in_root(root, *interpreter, "-I", "-c", debian.IMPORTS).split() == [python, machine]
        (root / "etc/dmpd/local-registry.yaml").write_text(CONFIG)
        said = in_root(
            root, *interpreter, "-I", "/usr/bin/dmpd", "check-config", "--config", "/etc/dmpd/local-registry.yaml"
        )
        assert said == "/etc/dmpd/local-registry.yaml: good\n"
