"""What the package brings can be loaded on arm64 too, by both CPythons that it is for, under qemu.

On amd64 ``test_deb_lifecycle`` has the daemon run, under both. Under qemu it is byte code that takes the time: of 3.11
it is made beforehand by this machine, if that is its Python, and under 3.13 only what is compiled for it is loaded.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import debian

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QEMU = "/usr/bin/qemu-aarch64-static"
UNUSED = "/(test|idlelib|lib2to3|ensurepip|distutils|pydoc_data|unittest|tkinter)/"
CONFIG = "rae: R1\nlan: {interface: br-lan, lease_file: /var/lib/misc/dnsmasq.leases}\n"


@contextmanager
def root_with_package(suite: str, python: str) -> Iterator[Path]:
    include = ["python3", f"libpython{python}-stdlib", "python3-yaml"]
    with debian.unpacked(debian.root_tar(suite, variant="extract", arch="arm64", include=include)) as root:
        debian.run("dpkg-deb", "-x", debian.built("arm64"), root)
        shutil.copy2(QEMU, root / QEMU[1:])
        yield root


def in_root(root: Path, python: str, *words: str) -> str:
    return debian.run("chroot", root, QEMU, f"/usr/bin/python{python}", "-I", *words, timeout_s=300)


def test_modules_import_and_a_configuration_is_read_on_debian_12() -> None:
    with root_with_package("bookworm", "3.11") as root:
        debian.run("/usr/bin/python3", "-m", "compileall", "-q", "-x", UNUSED, root / "usr/lib")
        assert in_root(root, "3.11", "-c", debian.IMPORTS).split() == ["3.11", "aarch64"]
        (root / "etc/dmpd/local-registry.yaml").write_text(CONFIG)
        check = ["/usr/bin/dmpd", "check-config", "--config", "/etc/dmpd/local-registry.yaml"]
        assert in_root(root, "3.11", *check) == "/etc/dmpd/local-registry.yaml: good\n"


def test_compiled_modules_import_on_debian_13() -> None:
    with root_with_package("trixie", "3.13") as root:
        assert in_root(root, "3.13", "-c", debian.COMPILED).split() == ["3.13", "aarch64"]
