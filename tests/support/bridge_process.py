"""Starts, kills and ends bridge processes for tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.support.bridge_main import Sections

_ROOT = Path(__file__).resolve().parents[2]


class BridgeProcess:
    """One bridge at a time, all with the same settings and one log file."""

    def __init__(self, sections: Sections, log: Path) -> None:
        self._sections = sections
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.bridge_main", msgspec.json.encode(self._sections).decode()],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def terminate(self) -> None:
        """TERM, and do not wait."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self, *, timeout_s: float = 30.0) -> int | None:
        """TERM; returns the exit code, None if it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        os.kill(process.pid, signal.SIGTERM)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
