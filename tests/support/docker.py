"""A dockerd of the tests' own, without an image registry: its base image is made by mmdebstrap."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

from tests.support.services import unavailable

ROOT = Path(__file__).resolve().parents[2]
DOCKER = "/usr/bin/docker"
"""Debian's: another client earlier on the path may not know BuildKit."""
BASE = "base:ci"
_BASE_FILE = ROOT / ".cache" / "image" / "bookworm.tar"
_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_START_S = 60


class Docker:
    """The client of a running daemon. What ``run`` starts is gone at the daemon's end."""

    def __init__(self, folder):
        self.host = f"unix://{folder / 'docker.sock'}"

    def __call__(self, *words, check=True, timeout_s=120, **more):
        command = [DOCKER, "-H", self.host, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **more)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def inspect(self, name):
        return json.loads(self("inspect", name).stdout)[0]

    def logs(self, name):
        done = self("logs", name)
        return done.stdout + done.stderr

    def build(self, tag):
        """By ``make image``'s script, on the base; returns how long it took, s."""
        environment = os.environ | {"DOCKER": f"{DOCKER} -H {self.host}", "BASE": BASE, "CA": str(_CA)}
        began_s = time.monotonic()
        done = subprocess.run(
            [ROOT / "packaging" / "image.sh", tag],
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return time.monotonic() - began_s


@contextmanager
def running():
    """A dockerd with the base image; everything of it is removed afterwards."""
    for program in (DOCKER, "/usr/sbin/dockerd"):
        if not Path(program).exists():
            unavailable(f"{program} is not installed")
    if os.geteuid() != 0:
        unavailable("dockerd needs root")
    with tempfile.TemporaryDirectory(prefix="dmpd-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        docker, process = Docker(folder), _start(folder)
        try:
            _wait_up(docker, process, folder)
            docker("import", _base(), BASE)
            yield docker
        finally:
            _end(docker, process, folder)


def _start(folder):
    command = ["/usr/sbin/dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    command += [f"--pidfile={folder}/dockerd.pid", f"--host=unix://{folder}/docker.sock", "--bridge=none"]
    command += ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    command.append("--userland-proxy=false")
    with (folder / "dockerd.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _wait_up(docker, process, folder):
    deadline_s = time.monotonic() + _START_S
    while docker("info", check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise AssertionError((folder / "dockerd.log").read_text()[-3000:])
        time.sleep(0.1)


def _end(docker, process, folder):
    names = docker("ps", "-aq", check=False).stdout.split()
    if names:
        docker("rm", "-f", *names, check=False)
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((one for one in mounts if one.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _base():
    """The root file system of Debian 12, made once and kept."""
    _BASE_FILE.parent.mkdir(parents=True, exist_ok=True)
    with (_BASE_FILE.parent / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not _BASE_FILE.exists():
            new = _BASE_FILE.with_name("new.tar")
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(new)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, done.stderr
            new.rename(_BASE_FILE)
    return _BASE_FILE
