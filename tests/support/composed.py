"""compose.yaml's own services on a dockerd of the tests'; in the place of the images of servers are the machine's own.

As a reader begins: certificates by ``certificates.sh``, in a copy of the files. Mosquitto is Debian's, as the image's
user and with the shipped configuration; Kafka and PostgreSQL are those of the tests. An override, which compose merges
in, has the services use the machine's network and says where the servers are; all else is as ``compose.yaml`` has it.
"""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import yaml

from dmpd.lab.layout import CHECKOUT, ETC
from dmpd.lab.server import free_ports, takes_connections
from dmpd.runtime import health
from tests.support.services import unavailable
from tests.support.stream_daemon import wait_for

FOLDER = CHECKOUT / "packaging" / "docker"
WAIT_S = 180
_PLUGIN = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
"""Debian's place of it."""


def copied(root, *words):
    """The files and their certificates (``words``: more of them) below ``root``; returns the folder of compose.yaml."""
    folder = root / "packaging" / "docker"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("tls"))
    (root / "etc").mkdir()
    shutil.copytree(ETC / "mosquitto", root / "etc" / "mosquitto")
    subprocess.run([folder / "certificates.sh", folder / "tls", *words], check=True, capture_output=True, timeout=120)
    return folder


@contextmanager
def mosquitto(folder, user):
    """Debian's, in the place of the image's: its user (``compose.yaml``'s word), its configuration; yields its port."""
    if os.geteuid() != 0:
        unavailable("needs root: other users")
    uid = user.partition(":")[0]
    (folder / "data").mkdir()
    os.chown(folder / "data", int(uid), int(uid))
    port = free_ports(1)[0]
    text = (folder / "mosquitto.conf").read_text()
    for there, here in (
        ("listener 8883", f"listener {port} 127.0.0.1"),
        ("/mosquitto/config/tls", folder / "tls"),
        ("/mosquitto/config/acl", folder.parents[1] / "etc/mosquitto/acl"),
        ("/mosquitto/data", folder / "data"),
        ("/usr/lib/mosquitto_dynamic_security.so", _PLUGIN),
    ):
        assert there in text
        text = text.replace(there, str(here))
    (folder / "mosquitto.here.conf").write_text(text)
    as_user = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]
    log = folder / "mosquitto.log"
    with log.open("ab") as out:
        broker = subprocess.Popen(
            [*as_user, "mosquitto", "-c", folder / "mosquitto.here.conf"],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: takes_connections(port), log.read_text, timeout_s=30)
        yield port
    finally:
        broker.terminate()
        broker.wait(30)


class Composed:
    """One project; ``override`` is what the services have beside ``compose.yaml``."""

    def __init__(self, docker, folder, image, override):
        self.docker, self.folder = docker, folder
        self._containers = {}
        self._environment = os.environ | {"DOCKER_HOST": docker.host, "DMPD_IMAGE": image}
        (folder / "override.yaml").write_text(yaml.safe_dump({"services": override}))

    def __call__(self, *words, check=True):
        program = shutil.which("docker-compose")
        if program is None:
            unavailable("docker-compose is not installed")
        command = [program, "-p", "dmpdci", "-f", "compose.yaml", "-f", "override.yaml", *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=2 * WAIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done

    def up(self, *names):
        """Without what they depend on."""
        self._containers.clear()
        self("up", "-d", "--no-deps", *names)

    def inside(self, name, *words, check=True):
        """Run a command in its container, by docker itself: compose takes a second for it."""
        return self.docker("exec", self.container(name), *words, check=check)

    def container(self, name):
        """Its id."""
        if name not in self._containers:
            self._containers[name] = self("ps", "-q", name).stdout.strip()
        return self._containers[name]

    def state(self, name):
        return self.docker.inspect(self.container(name))["State"]

    def logs(self, name):
        return self.docker.logs(self.container(name))

    def wait(self, condition, what, *names):
        def said():
            return f"{what}: " + " ".join(f"{name}: {self.state(name)} {self.logs(name)[-3000:]}" for name in names)

        return wait_for(condition, said, timeout_s=WAIT_S, poll_s=0.5)

    def wait_ready(self, binds):
        """``binds``, by name: where each answers that it is ready; and healthy by its container's own check."""
        for name, bind in binds.items():
            self.wait(lambda bind=bind: is_ready(bind), "ready", name)
        for name in binds:
            self.wait(lambda name=name: self.state(name)["Health"]["Status"] == "healthy", "healthy", name)


def is_ready(bind):
    try:
        return json.loads(health.fetch(bind, "/status")[1])["state"] == "ready"
    except OSError:
        return False
