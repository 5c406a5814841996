"""The Debian package under test: built once per content, root trees made once, both shared by all workers of a run.

What is made lies in .cache under a name that its inputs decide, so that a second run makes nothing; a lock lets one
worker make it while the others wait.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import yardstick
from tests.support.services import unavailable

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
TOOLS = (
    "dpkg-buildpackage",
    "dh",
    "lintian",
    "piuparts",
    "mmdebstrap",
    "aarch64-linux-gnu-strip",
    "qemu-aarch64-static",
)
INPUTS = ("dmpd", "docs", "etc", "packaging", "CHANGELOG.md", "LICENSE", "pyproject.toml", "requirements.lock")
BUILDS = {"amd64": "make deb", "arm64": "make deb ARCH=arm64"}
"""As in docs/rae.md."""
MADE = ROOT / "build/deb"
BUILD_S = 600
ROOT_S = 600
COMPILED = """
import sys
sys.path[0:0] = ["/usr/lib/dmpd/app", "/usr/lib/dmpd/vendor"]
import msgspec, orjson, platform
assert msgspec.json.decode(orjson.dumps({"a": 1})) == {"a": 1}
print(f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine())
"""
"""Loads the modules that are of one architecture and one CPython; says which."""
IMPORTS = (
    COMPILED
    + """
import dmpd.local_registry.daemon, dmpd.local_registry.sources.neighbours, dmpd.runtime.mqtt, paho
places = {module.__file__.rpartition("/usr/lib/")[2].split("/")[1] for module in (msgspec, orjson, paho)}
assert places == {"vendor"}, places
"""
)


def need_tools(tools: Sequence[str] = TOOLS) -> None:
    """Skip (in CI: fail) where no package can be built or installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        unavailable(f"not installed: {', '.join(missing)} (packaging/setup.sh deb)")
    if os.geteuid() != 0:
        unavailable("needs root: chroots and mounts")


def run(*argv: str | Path, timeout_s: float = BUILD_S, cwd: Path = ROOT) -> str:
    """Run a command and return what it says; it must succeed."""
    done = subprocess.run(
        argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout[-8000:]}"
    return done.stdout


def built(arch: str) -> Path:
    """The package of this checkout for ``arch``, made as the guide says."""

    def make(folder: Path) -> None:
        said = run("sh", "-c", BUILDS[arch])
        (folder / "said").write_text(said)
        (folder / "slowness").write_text(str(yardstick.slowness()))
        (line,) = [line for line in said.splitlines() if line.startswith(f"deb: {MADE}/")]
        shutil.copy2(line.removeprefix("deb: ").partition(":")[0], folder)

    need_tools()
    return _once(f"deb-{arch}", _inputs(), make, "*.deb")


def build_again(arch: str, folder: Path) -> Path:
    """Build anew: elsewhere, without a network, by somebody with another umask, time zone, language and home."""
    elsewhere = ["unshare", "--net", "env", "TZ=Pacific/Auckland", "LC_ALL=C", f"HOME={folder}"]
    run(*elsewhere, "sh", "-c", 'umask 077 && exec packaging/deb.sh "$@"', "sh", arch, folder)
    (deb,) = folder.glob("*.deb")
    return deb


def root_tar(suite: str, *, variant: str = "minbase", arch: str = "amd64", include: Sequence[str] = ()) -> Path:
    """A pristine root tree of Debian as a tar file; from the mirror, once."""
    options = ["--quiet", f"--variant={variant}", f"--arch={arch}"]
    if include:
        options.append(f"--include={','.join(include)}")
    if arch != "amd64":
        options.append("--skip=check/qemu")  # nothing of it runs while it is made

    need_tools(["mmdebstrap"])

    def make(folder: Path) -> None:
        run("mmdebstrap", *options, suite, folder / "root.tar", timeout_s=ROOT_S)

    return _once(
        f"root-{suite}-{arch}-{variant}", hashlib.sha256(" ".join(options).encode()).hexdigest(), make, "root.tar"
    )


def archives(suite: str) -> Path:
    """A folder for apt's downloads that the root trees of a suite share, and later runs find again."""
    folder = CACHE / "packaging" / f"archives-{suite}"
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def unpacked(tar: Path) -> Iterator[Path]:
    """A root tree of one's own from ``tar``; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="dmpd-root-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        run("tar", "-C", folder, "--exclude=./dev/*", "-xf", tar)
        for merged in (
            "bin",
            "lib",
            "lib64",
            "sbin",
        ):  # base-files has these links, which the variant "extract" leaves out
            if (folder / "usr" / merged).exists() and not (folder / merged).exists():
                (folder / merged).symlink_to(f"usr/{merged}")
        yield folder


def _inputs() -> str:
    """A name for everything that goes into the package."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *INPUTS).splitlines()
    digest = hashlib.sha256()
    for name in sorted(listed):
        path = ROOT / name
        if path.is_file():
            digest.update(f"{name} {path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _once(name: str, key: str, make: Callable[[Path], object], pattern: str) -> Path:
    """What ``make`` puts into a folder under ``name`` and ``key``; older keys go, half-made ones never show."""
    base = CACHE / "packaging" / name
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = base / key[:16]
        if not target.exists():
            for old in base.glob("*/"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=base, prefix="making-") as made:
                new = Path(made) / "new"
                new.mkdir()
                make(new)
                new.rename(target)
    (found,) = target.glob(pattern)
    return found
