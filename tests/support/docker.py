"""A dockerd of the tests' own, without an image registry: its base image is made by mmdebstrap."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests.support import debian
from tests.support.services import unavailable

ROOT = Path(__file__).resolve().parents[2]
DOCKER = "/usr/bin/docker"
"""Debian's: another client earlier on the path may not know BuildKit."""
BASE = "base:ci"
_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_START_S = 60


class Docker:
    """The client of a running daemon. What ``run`` starts is gone at the daemon's end."""

    inside = ()
    """Before a command: run it in the daemon's network."""

    def __init__(self, folder):
        self.host = f"unix://{folder / 'docker.sock'}"

    def __call__(self, *words, check=True, timeout_s=120, text=True, **more):
        command = [DOCKER, "-H", self.host, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=text, timeout=timeout_s, check=False, **more)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def inspect(self, name):
        return json.loads(self("inspect", name).stdout)[0]

    def logs(self, name):
        done = self("logs", name)
        return done.stdout + done.stderr

    def build(self, tag):
        """By ``make image``, on the base; returns what it said and how long it took, s."""
        environment = os.environ | {"DOCKER": f"{DOCKER} -H {self.host}", "BASE": BASE, "CA": str(_CA)}
        began_s = time.monotonic()
        done = subprocess.run(
            ["make", "image", f"TAG={tag}"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, time.monotonic() - began_s


@contextmanager
def running(*, own_network=False):
    """A dockerd with the base image; everything of it is removed afterwards.

    ``own_network``: it has a network namespace of its own, reached through ``Docker.inside``, with bridges in it and no
    way out; else there is no network but this machine's.
    """
    for program in (DOCKER, "/usr/sbin/dockerd"):
        if not Path(program).exists():
            unavailable(f"{program} is not installed")
    if os.geteuid() != 0:
        unavailable("dockerd needs root")
    with tempfile.TemporaryDirectory(prefix="dmpd-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        docker, process = Docker(folder), _start(folder, own_network=own_network)
        try:
            _wait_up(docker, process, folder)
            if own_network:
                docker.inside = ["nsenter", "--target", str(process.pid), "--net"]
            else:
                docker("import", debian.root_tar("bookworm"), BASE)
            yield docker
        finally:
            _end(docker, process, folder)


def _start(folder, *, own_network):
    command = ["/usr/sbin/dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    command += [f"--pidfile={folder}/dockerd.pid", f"--host=unix://{folder}/docker.sock"]
    if own_network:
        command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    else:
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
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
