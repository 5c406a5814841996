"""The lab's folder: where it lies, who holds it, and what it remembers of the lab that runs.

It lies in the system's folder for temporary files, because the servers' own users must be able to enter it (a checkout
under /root is closed to them), under a name that stands for this user and this checkout: two checkouts, two labs.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from dmpd.lab.layout import CHECKOUT

_LOCK: Final = "lock"


class LabRunningError(Exception):
    """Another process runs this lab; the text says which, and what it runs."""


class LabStateError(Exception):
    """The folder cannot be used."""


class LabInfo(Struct, frozen=True, kw_only=True):
    """What ``status``, ``kill``, ``plug`` and ``down`` need to know of the lab that runs."""

    pid: int
    raes: int
    devices: int
    rate: float
    mosquitto_port: int
    kafka_port: int
    parts: list[str] = []
    """Parts that were started, in the order of their start."""
    lan: bool = False
    duts: int = 0
    """Devices on the LAN; they are switched on last."""
    ready: bool = False


class LabFolder:
    """The folder ``root``. Paths only; nothing is created before ``create``."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()
        self.tls = self.root / "tls"
        self.log = self.root / "log"
        self.programs = self.root / "programs"
        self.run = self.root / "run"
        self.mosquitto = self.root / "mosquitto"
        self.kafka = self.root / "kafka"
        self.postgresql = self.root / "postgresql"
        self.simulate = self.root / "simulate"
        self.lan = self.root / "lan"
        self.duts_socket = self.run / "duts.sock"
        self.config = self.root / "dmpd.yaml"
        self.supervisor_config = self.root / "supervisord.conf"
        self.supervisor_socket = self.run / "supervisor.sock"
        self._info = self.root / "lab.json"

    def create(self) -> None:
        """Make the folder, empty but for the lock. The caller holds the lock."""
        for entry in self.root.iterdir():
            if entry.name == _LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for folder in (self.tls, self.log, self.programs, self.run, self.simulate, self.lan):
            folder.mkdir()
        self.tls.chmod(0o700)

    def remove(self) -> None:
        """Remove the folder with everything in it, the lock last, by which others know. The caller holds it."""
        for entry in self.root.iterdir():
            if entry.name != _LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(self.root)

    def lock(self) -> "LabLock":
        """Take the lab, making its folder if need be; does not block.

        Raises:
            LabRunningError: Somebody has it.
            LabStateError: The folder belongs to another user, or is no folder.
        """
        try:
            self.root.mkdir(mode=0o755, exist_ok=True)
            found = self.root.lstat()
        except OSError as error:
            raise LabStateError(f"{self.root} cannot be the lab's folder: {error.strerror}") from error
        if self.root.is_symlink() or found.st_uid != os.geteuid():
            raise LabStateError(f"{self.root} is not ours: remove it, or set another --state")
        return LabLock(self)

    def is_locked(self) -> bool:
        """Whether a process runs this lab now.

        Raises:
            LabStateError: It is somebody else's.
        """
        try:
            descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise LabStateError(f"{self.root} belongs to another user: ask as that user") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def holder_pid(self) -> int | None:
        """Process that runs this lab, or ran it last; ``None`` when nobody is known."""
        try:
            return int((self.root / _LOCK).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_info(self, info: LabInfo) -> None:
        partial = self._info.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(info))
        partial.replace(self._info)

    def read_info(self) -> LabInfo | None:
        """What the lab wrote last; ``None`` when there is nothing, or it is of another version."""
        try:
            return msgspec.json.decode(self._info.read_bytes(), type=LabInfo)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


class LabLock:
    """Holds the lab from its making until ``release`` or the end of the process."""

    def __init__(self, folder: LabFolder) -> None:
        self._descriptor = os.open(folder.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise LabRunningError(_describe(folder)) from None
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        os.close(self._descriptor)


def serial(number: int) -> str:
    """Serial of the ``number``-th simulated RAE, from 1."""
    return f"sim-{number:04}"


def default_root() -> Path:
    """This user's and this checkout's folder."""
    key = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"dmpd-lab-{os.geteuid()}-{key}"


def _describe(folder: LabFolder) -> str:
    info = folder.read_info()
    if info is None:
        return f"a lab is starting or ending in {folder.root}"
    running = ", ".join(info.parts) or "nothing yet"
    option = "" if folder.root == default_root() else f" --state {folder.root}"
    return (
        f"a lab runs already (pid {info.pid}, {info.raes} simulated RAEs with {info.devices} devices each, "
        f"{info.duts} devices on a LAN): {running}\n"
        f"  dmpd lab{option} status    shows it\n  dmpd lab{option} down      ends it"
    )
