"""A small lab for tests: the real platform, started and asked as people do, by ``dmpd lab``."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmpd.lab.server import ServerError
from dmpd.lab.state import LabFolder
from dmpd.lab.status import lab_status
from dmpd.lab.supervision import Supervisor
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings
from tests.support.services import public_folder, unavailable

BIN = Path(sys.executable).parent
UP_TIMEOUT_S = 90.0
DOWN_TIMEOUT_S = 90.0


def until(
    condition: Callable[[], object], what: str, timeout_s: float = 30.0, *, said: Callable[[], str] = str
) -> None:
    """Wait for ``condition``; the assertion names what did not come, and what ``said`` says then."""
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert condition(), f"not within {timeout_s:g} s: {what} {said()}"


def dmpd(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return run_program("dmpd", *arguments, timeout_s=timeout_s)


def run_program(name: str, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


class LabUnderTest:
    """A running ``dmpd lab up``."""

    def __init__(self, process: subprocess.Popen[str], folder: LabFolder) -> None:
        self.process = process
        self.folder = folder
        self.supervisor = Supervisor(folder)

    def lab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return dmpd("lab", "--state", str(self.folder.root), *arguments)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_program("dmpctl", *arguments, "--config", str(self.folder.config))

    def status(self) -> dict[str, Any]:
        done = self.lab("status", "--json")
        return json.loads(done.stdout) if done.stdout else {"running": False}

    def health(self) -> dict[str, Any]:
        """What each daemon says of itself now, by part; asked from here, which is quicker than a command."""
        found = lab_status(self.folder)
        assert found["running"], "the lab runs"
        return found["health"]

    @property
    def kafka(self) -> KafkaSettings:
        info = self.folder.read_info()
        assert info is not None
        return KafkaSettings(bootstrap_servers=f"127.0.0.1:{info.kafka_port}")

    @property
    def database(self) -> DatabaseSettings:
        return DatabaseSettings(conninfo=f"host={self.folder.postgresql / 'socket'} dbname=dmpd user=dmpd")

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.database.conninfo, autocommit=True) as connection:
            return connection.execute(statement, values or None).fetchall()  # type: ignore[call-overload]


@contextmanager
def running_lab(*options: str) -> Iterator[LabUnderTest]:
    """``dmpd lab up OPTIONS`` in a folder of its own, ready; ended behind, and nothing of it may be left."""
    with public_folder() as root:
        folder = LabFolder(root / "lab")
        command = [str(BIN / "dmpd"), "lab", "--state", str(folder.root), "up", *options]
        output = root / "up.log"
        with output.open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, start_new_session=True
            )
        lab = LabUnderTest(process, folder)
        try:
            wait_up(lab, output)
            yield lab
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait(DOWN_TIMEOUT_S)
        assert code == 0, output.read_text()


def wait_up(lab: LabUnderTest, output: Path) -> None:
    """Wait until the lab is ready; skips (in CI fails) where a program of it is missing."""
    deadline_s = time.monotonic() + UP_TIMEOUT_S
    while (info := lab.folder.read_info()) is None or not info.ready:
        if lab.process.poll() is not None or time.monotonic() > deadline_s:
            said = output.read_text()
            if "is not installed" in said or "no Kafka jars" in said:
                unavailable(said)
            raise ServerError(f"the lab did not come up\n{said}")
        time.sleep(0.1)
