"""supervisord for the lab: its configuration, its start, and the few calls that the lab makes to it.

Program files are those of ``etc/supervisor/``, unchanged; what differs from machine to machine they take from
supervisord's environment. A part is enabled like an operator would: its file is put in place, then reread and add.
"""

import http.client
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from dmpd.lab.layout import ETC
from dmpd.lab.server import ServerError
from dmpd.lab.server_process import log_tail
from dmpd.lab.state import LabFolder

MARK: Final = "DMPD_LAB"
"""Environment variable by which every process of a lab is known, value = the lab's folder."""
_START_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.05
_FILES: Final = min(16_384, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
"""Each client of the broker is a file of it; supervisord's default of 1024 would turn away all above some 1000."""
_CONFIG: Final = """\
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
nodaemon=true
identifier=dmpd-lab
minfds={files}
directory={root}
logfile={log}/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile={run}/supervisord.pid
childlogdir={log}
{user}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{socket}

[include]
files={programs}/*.conf
"""


class PartState(Struct, frozen=True):
    """A program as supervisord sees it: its state word, its pid (0 = none) and for how long it has been so."""

    name: str
    state: str
    pid: int
    up_s: int


class Supervisor:
    """Client of the supervisord of ``folder``; each call opens and closes a connection."""

    def __init__(self, folder: LabFolder) -> None:
        self._folder = folder

    def start(self, *, environment: Mapping[str, str], as_root: bool) -> "subprocess.Popen[bytes]":
        """Start supervisord without programs, in a session of its own; it ends with this process.

        Raises:
            ServerError: It did not come up; with the tail of its log.
        """
        folder = self._folder
        text = _CONFIG.format(
            socket=folder.supervisor_socket,
            root=folder.root,
            log=folder.log,
            run=folder.run,
            programs=folder.programs,
            files=_FILES,
            user="user=root" if as_root else "",
        )
        folder.supervisor_config.write_text(text)
        output = folder.log / "supervisord.out"
        # When the lab dies by kill -9, the kernel's TERM makes supervisord end the parts in their order.
        command = ["setpriv", "--pdeathsig", "TERM", _supervisord(), "-c", str(folder.supervisor_config)]
        with output.open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment, MARK: str(folder.root)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self.is_running():
            if process.poll() is not None or time.monotonic() > deadline_s:
                process.kill()
                raise ServerError(f"supervisord does not start\n{log_tail(output)}")
            time.sleep(_POLL_S)
        return process

    def is_running(self) -> bool:
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def enable(self, part: str) -> list[str]:
        """Start what ``etc/supervisor/{part}.conf`` names; returns the programs' names, before they are ready.

        Raises:
            ServerError: supervisord refuses the program file.
        """
        shutil.copyfile(ETC / "supervisor" / f"{part}.conf", self._folder.programs / f"{part}.conf")
        try:
            [[added, _changed, _removed]] = self._call("reloadConfig")
            for program in added:
                self._call("addProcessGroup", program)
        except xmlrpc.client.Fault as fault:
            raise ServerError(f"supervisord refuses {part}.conf: {fault.faultString}") from fault
        return [str(program) for program in added]

    def states(self) -> list[PartState]:
        """All parts; empty when supervisord does not answer."""
        try:
            found = self._call("getAllProcessInfo")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return []
        return [
            PartState(
                name=str(entry["name"]),
                state=str(entry["statename"]),
                pid=int(entry["pid"]),
                up_s=max(0, int(entry["now"]) - int(entry["start"])) if entry["pid"] else 0,
            )
            for entry in found
        ]

    def signal(self, program: str, name: str) -> None:
        """Send a signal ("KILL", "STOP", …) to the program's process, not to its children."""
        try:
            self._call("signalProcess", program, name)
        except xmlrpc.client.Fault as fault:
            raise ServerError(f"{program}: {fault.faultString}") from fault

    def stop(self, program: str) -> None:
        """Stop a program and wait until it is gone (it stays stopped until ``restart``)."""
        self._call("stopProcess", program)

    def restart(self, program: str) -> None:
        """Start a stopped program; returns before it is ready."""
        self._call("startProcess", program, False)

    def shutdown(self) -> None:
        """Tell supervisord to end: last started first, each group after the one before it. Does not wait."""
        try:
            self._call("shutdown")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return  # it is ending, or has ended

    def _call(self, method: str, *arguments: object) -> Any:
        proxy = xmlrpc.client.ServerProxy("http://lab/RPC2", transport=_UnixTransport(self._folder.supervisor_socket))
        with proxy:
            return getattr(proxy.supervisor, method)(*arguments)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # by which the base class closes it
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("lab", timeout=60)
        self._path = path

    def connect(self) -> None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(self.timeout)
        try:
            found.connect(str(self._path))
        except OSError:
            found.close()
            raise
        self.sock = found


def _supervisord() -> str:
    beside = Path(sys.executable).with_name("supervisord")
    found = str(beside) if beside.exists() else shutil.which("supervisord")
    if found is None:
        raise ServerError("supervisord is not installed (make setup, or apt-get install supervisor)")
    return found
