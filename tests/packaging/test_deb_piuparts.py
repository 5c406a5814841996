"""Debian's own judge of packages: installed, removed and purged in a bare system, it leaves nothing behind."""

import gzip
import os
import shutil

import pytest

from tests.support import debian

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MIRROR = "http://deb.debian.org/debian main"


def test_piuparts_passes(tmp_path):
    base = tmp_path / "base.tar.gz"
    with debian.root_tar("bookworm").open("rb") as tar, gzip.open(base, "wb", compresslevel=1) as packed:
        shutil.copyfileobj(tar, packed, 1 << 20)
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    options = [
        "--basetgz",
        base,
        "-d",
        "bookworm",
        "--mirror",
        MIRROR,
        "-t",
        work,
        "--no-upgrade-test",
        "--no-eatmydata",
    ]
    apart = ["unshare", "--mount", "--propagation", "private"]
    path = os.environ["PATH"]
    said = debian.run(*apart, "env", f"PATH=/usr/sbin:/sbin:{path}", "piuparts", *options, debian.built("amd64"))
    assert "PASS: All tests." in said
