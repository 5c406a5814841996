"""One server as a child of this process: for tests, which start, kill, freeze and restart servers one by one.

The lab itself runs its servers under supervisord instead.
"""

import os
import pwd
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from dmpd.lab.server import Server, ServerError

_POLL_S: Final = 0.02
_LOG_TAIL_BYTES: Final = 4_000


class ServerProcess:
    """Runs ``server`` in a session of its own; it ends with this process. Not thread-safe."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.log = server.folder.with_name(server.folder.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *, timeout_s: float = 60.0) -> None:
        """Start the prepared server and wait until it takes connections.

        Raises:
            ServerError: It ended, or was not ready in time; with the tail of its log.
        """
        assert self._process is None, "already started"
        server = self.server
        # The kernel ends it when this process dies, however that happens: no leftovers of an aborted test run.
        command = ["setpriv", "--pdeathsig", server.stop_signal, *server.command()]
        entry = pwd.getpwnam(server.user)
        root = os.geteuid() == 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=server.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=entry.pw_uid if root else None,
                group=entry.pw_gid if root else None,
                extra_groups=[] if root else None,
            )
        self._wait_ready(timeout_s)

    def stop(self, *, timeout_s: float = 20.0) -> None:
        """End it the way it likes; kill it when that takes longer than ``timeout_s``. A stopped one stays stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT if self.server.stop_signal == "INT" else signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process, self._process = self._process, None
        assert process is not None, "not started"
        process.kill()
        process.wait()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _wait_ready(self, timeout_s: float) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + timeout_s
        while not self.server.is_ready():
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise ServerError(f"{self.server.name} ended with {code} while starting\n{log_tail(self.log)}")
            if time.monotonic() > deadline_s:
                self.stop()
                raise ServerError(f"{self.server.name} is not ready after {timeout_s:g} s\n{log_tail(self.log)}")
            time.sleep(_POLL_S)


def log_tail(path: Path, *, lines: int = 15) -> str:
    """The last lines of a log, indented; empty for a file that is not there."""
    try:
        content = path.read_bytes()[-_LOG_TAIL_BYTES:]
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in content.decode(errors="replace").splitlines()[-lines:])
