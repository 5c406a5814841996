"""A real supervisord of a given version, with the files of ``etc/supervisor`` below a folder instead of ``/``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from dmpd.cli.daemons import PROGRAMS
from dmpd.lab.layout import ETC
from dmpd.lab.supervision import Supervisor
from tests.support.services import unavailable
from tests.support.stream_daemon import wait_for

DAEMONS = ("local-registry", *PROGRAMS)
DRAIN_S = 60
"""More than any deadline and its grace; a loaded machine is slow, not stuck."""


def programs(version):
    """``(supervisord, supervisorctl)`` of this version: Debian's, or the one of our own environment."""
    for folder in ("/usr/bin", str(Path(sys.executable).parent)):
        found = Path(folder) / "supervisord"
        if found.exists():
            said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout.strip()
            if said == version:
                return str(found), str(found.with_name("supervisorctl"))
    unavailable(f"supervisor {version} is not installed")
    raise AssertionError


class Supervisord:
    """Made with the paths of the shipped files put below ``root``; ``start`` and ``end`` as often as wanted."""

    def __init__(self, root, version):
        self.root = Path(root)
        self._supervisord, self._ctl = programs(version)
        self.config = self.path("/etc/supervisor/supervisord.conf")
        self.programs = self.path("/etc/dmpd/supervisor")
        for folder in ("/etc/supervisor", "/etc/dmpd/supervisor", "/run/dmpd", "/var/log/dmpd", "/var/lib/dmpd"):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        for name in DAEMONS:
            shutil.copy(ETC / "supervisor" / f"{name}.conf", self.programs)
        text = (ETC / "supervisor" / "supervisord.conf").read_text()
        text = text.replace("user=dmpd\n", "").replace("/usr/bin/dmpd", str(Path(sys.executable).with_name("dmpd")))
        for top in ("/etc/dmpd", "/run/dmpd", "/var/log/dmpd"):
            text = text.replace(top, str(self.path(top)))
        self.config.write_text(text)
        self._client = Supervisor(SimpleNamespace(supervisor_socket=self.path("/run/dmpd/supervisor.sock")))
        self._process = None

    def path(self, absolute):
        return self.root / absolute.removeprefix("/")

    def start(self):
        with self.path("/var/log/dmpd/supervisord.out").open("ab") as log:
            self._process = subprocess.Popen(
                [self._supervisord, "-n", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("DMPD")},
                start_new_session=True,
            )
        wait_for(self._client.is_running, "supervisord answers", timeout_s=DRAIN_S)
        return self

    def kill(self):
        """As the OOM killer does."""
        self._process.kill()
        self._process.wait()

    def end(self):
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(3 * DRAIN_S)

    def ctl(self, *words):
        command = [self._ctl, "-c", str(self.config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * DRAIN_S, check=False)

    def part(self, name):
        """State word and pid, asked without supervisorctl, which takes a third of a second."""
        return next((one for one in self._client.states() if one.name == name), None)

    def state(self, name):
        part = self.part(name)
        return "GONE" if part is None else part.state

    def pid(self, name):
        """0 while it does not run."""
        part = self.part(name)
        return 0 if part is None else part.pid

    def log(self, name="supervisord"):
        return self.path(f"/var/log/dmpd/{name}.log").read_text(errors="replace")

    def wait_running(self, name, *, but=0):
        """Until it runs with another pid than ``but``; returns the pid."""
        return wait_for(
            lambda: (part := self.part(name)) and part.state == "RUNNING" and part.pid != but and part.pid,
            lambda: f"{name} is {self.ctl('status', name).stdout}{self.log(name)[-2000:]}",
            timeout_s=DRAIN_S,
        )
