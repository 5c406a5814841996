"""dnsmasq's leases as a source of evidence: who has which address, name and client id, and who just renewed.

The file is looked at ten times a second rather than watched: that works on every file system, for a file that is not
there yet, is replaced or written over in place, and costs less than a system call per device and minute.

Where dnsmasq runs ``lease_hook`` too, each of its datagrams is a reason to look at once, and adds what the file does
not have: the vendor class.
"""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from dmpd.local_registry.source import LanSignal
from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.lease_book import NAME, LeaseBook, Reading
from dmpd.local_registry.sources.lease_file import FILE_BYTES_MAX, parse
from dmpd.local_registry.sources.lease_socket import LeaseSocket
from dmpd.local_registry.sources.trouble import Trouble

POLL_INTERVAL_S: Final = 0.1
SETTLE_S: Final = 0.1
"""A file that did not change for so long is whole: dnsmasq writes over it in place, in several writes if it is long."""

_Signature = tuple[int, int, int]


class LeaseSource:
    """A ``LanSource`` over the lease file ``path``, which may be absent now or later. For one event loop.

    ``socket`` is where dnsmasq's script tells of leases; without one, the file says all.
    """

    name: Final = NAME

    def __init__(
        self,
        path: Path,
        *,
        socket: LeaseSocket | None = None,
        poll_interval_s: float = POLL_INTERVAL_S,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._socket = socket
        self._poll_interval_s = poll_interval_s
        self._now_s = now_s
        self._wall_s = wall_s
        self._book = LeaseBook()
        self._signature: _Signature | None = None
        self._changed_s = 0.0
        self._settled = False
        self._trouble = Trouble(f"lease file {path}")

    async def signals(self) -> AsyncIterator[LanSignal]:
        """Begin with all leases, then yield what changes. One consumer at a time; no trouble with the file raises."""
        self._signature = None
        for signal in await self.dump():
            yield signal
        try:
            while True:
                for signal in self._turn():
                    yield signal
                await self._pause()
        finally:
            if self._socket is not None:
                self._socket.close()

    async def dump(self) -> Sequence[LanSignal]:
        """All leases as last read; says nothing on who is alive."""
        return self._book.known(now_s=self._now_s())

    async def poke(self, *, ip: str, mac: str | None) -> None:
        """Nothing: a lease file cannot ask anybody."""

    def _turn(self) -> list[LanSignal]:
        """What is new. The datagrams are taken before the file is read, so that it has what they are about."""
        events = self._socket.take() if self._socket is not None else []
        found = self._look()
        for event in events:
            found += self._book.hear(event, now_s=self._now_s())
        return found

    async def _pause(self) -> None:
        if self._socket is None:
            await asyncio.sleep(self._poll_interval_s)
        else:
            await self._socket.wait(self._poll_interval_s)

    def _look(self) -> list[LanSignal]:
        """Read the file if it changed since the last look, and again until it has not changed for a while.

        Again, because a file's time has the resolution of the kernel's tick: what is written right after our reading
        may leave no other trace.
        """
        try:
            signature = self._sign(self._path.stat())
            if signature == self._signature and self._settled:
                return []
            if signature != self._signature:
                self._signature, self._changed_s = signature, self._now_s()
            self._settled = self._now_s() - self._changed_s >= SETTLE_S
            content = self._read()
        except FileNotFoundError:
            # Keep what we know: when the file comes back, only what really changed is told.
            self._signature = None
            self._trouble.tell("is not there")
            return []
        except OSError as error:
            self._signature = None
            metrics.troubles.labels(NAME).inc()
            self._trouble.tell(str(error))
            return []
        self._trouble.over()
        found = parse(content)
        metrics.lease_lines_bad.set(found.bad_lines)
        reading = Reading(file_id=signature[0], leases=found.leases)
        return list(self._book.update(reading, now_s=self._now_s(), wall_s=self._wall_s(), settled=self._settled))

    def _read(self) -> bytes:
        # Not blocking: should the path be a pipe, nobody waits for its other end.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(FILE_BYTES_MAX)
        finally:
            os.close(descriptor)

    @staticmethod
    def _sign(status: os.stat_result) -> _Signature:
        return status.st_ino, status.st_mtime_ns, status.st_size
