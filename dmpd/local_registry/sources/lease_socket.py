"""The unix socket on which dnsmasq's script tells of leases. Moves bytes; what they say is ``lease_script``'s.

Owner and group may write (0660), like the control socket: dnsmasq runs its script as root, or as ``dhcp-scriptuser``.
What is not read yet waits in the kernel, which refuses more than some: a flood costs its sender.
"""

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.lease_book import NAME
from dmpd.local_registry.sources.lease_script import DATAGRAM_BYTES_MAX, LeaseEvent, parse
from dmpd.local_registry.sources.trouble import Trouble

DATAGRAMS_PER_TURN: Final = 64
"""Read at a time, so that a flood leaves the loop to others in between."""
CHECK_INTERVAL_S: Final = 1.0
"""So often it is made sure that the socket's file is there, or tried to make it."""
_MODE: Final = 0o660


class LeaseSocket:
    """A datagram socket at ``path``. For one event loop and one reader; another process must not use the same path."""

    def __init__(self, path: Path, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now_s = now_s
        self._socket: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        self._check_at_s = now_s()
        self._trouble = Trouble(f"lease socket {path}")

    def take(self) -> list[LeaseEvent]:
        """Up to 64 datagrams of those that wait, as events; what is none is counted. Never blocks, never raises.

        Opens the socket first where that is needed, and again when its file was deleted or replaced.
        """
        now_s = self._now_s()
        if now_s >= self._check_at_s:
            self._check_at_s = now_s + CHECK_INTERVAL_S
            self._ensure()
        found = []
        for _ in range(DATAGRAMS_PER_TURN):
            datagram = self._receive()
            if datagram is None:
                break
            event = parse(datagram)
            if event is not None:
                found.append(event)
            metrics.lease_datagrams.labels(_fate(datagram, event)).inc()
        return found

    async def wait(self, timeout_s: float) -> None:
        """Until there may be something to take, ``timeout_s`` at most."""
        if self._socket is None:
            await asyncio.sleep(timeout_s)
            return
        loop, descriptor, readable = asyncio.get_running_loop(), self._socket.fileno(), asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            with contextlib.suppress(TimeoutError):  # time passed
                async with asyncio.timeout(timeout_s):
                    await readable.wait()
        finally:
            loop.remove_reader(descriptor)

    def close(self) -> None:
        """Stop listening and remove the file, if it is still ours. Idempotent; the next ``take`` opens anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):  # a file left behind is replaced by the next life
                if self._is_ours():
                    self._path.unlink()
        self._check_at_s = self._now_s()

    def _ensure(self) -> None:
        try:
            if self._socket is None or not self._is_ours():
                self._open()
        except OSError as error:
            metrics.troubles.labels(NAME).inc()
            self._trouble.tell(str(error))
        else:
            self._trouble.over()

    def _open(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._remove_stale()
        with contextlib.ExitStack() as cleanup:
            made = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            os.fchmod(made.fileno(), _MODE)  # before it has a name: at no moment may others write
            made.bind(str(self._path))
            self._path.chmod(_MODE)  # what the umask took
            status = self._path.lstat()
            self._file = status.st_dev, status.st_ino
            self._socket = made
            cleanup.pop_all()

    def _remove_stale(self) -> None:
        """Remove what an earlier life left; anything but a socket is somebody's, and stays."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise OSError("something else is there")
            self._path.unlink()

    def _is_ours(self) -> bool:
        try:
            status = self._path.lstat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _receive(self) -> bytes | None:
        if self._socket is None:
            return None
        try:
            return self._socket.recv(DATAGRAM_BYTES_MAX + 1)
        except BlockingIOError:  # nothing more waits
            return None
        except OSError as error:
            metrics.troubles.labels(NAME).inc()
            self._trouble.tell(str(error))
            self.close()
            return None


def _fate(datagram: bytes, event: LeaseEvent | None) -> str:
    if event is not None:
        return "taken"
    return "oversized" if len(datagram) > DATAGRAM_BYTES_MAX else "bad"
