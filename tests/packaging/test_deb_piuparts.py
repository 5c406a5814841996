"""Debian's own judge of packages: installed, removed and purged in a bare system, it leaves nothing behind."""

import gzip
import os
import shutil

import pytest

from tests.support import debian

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MIRROR = "http://deb.debian.org/debian main"
LEFT_ON_PURPOSE = (
    "^/var/lib/(adduser|systemd)",  # what making the user leaves: the package keeps it, so that its uid stays its own
)


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
    ignored = [word for pattern in LEFT_ON_PURPOSE for word in ("--ignore-regex", pattern)]
    apart = ["unshare", "--mount", "--propagation", "private"]
    path = os.environ["PATH"]
    said = debian.run(
        *apart, "env", f"PATH=/usr/sbin:/sbin:{path}", "piuparts", *options, *ignored, debian.built("amd64")
    )
    assert "PASS: All tests." in said
