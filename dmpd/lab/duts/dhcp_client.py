"""A DUT's real DHCP client (busybox udhcpc) as a child process, started again whenever it ends."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dmpd.runtime.process import die_with_parent

_OBTAINED: Final = re.compile(rb"lease of (\S+) obtained")
_RESTART_S: Final = 1.0

_log = logging.getLogger(__name__)


class DhcpClient:
    """``run`` keeps one client alive until it is cancelled; ``ask_again`` makes it forget its lease and ask anew.

    ``on_lease`` is called with the address as soon as the client says that the server acknowledged it.
    """

    def __init__(self, command: Sequence[str], *, on_lease: Callable[[str], None]) -> None:
        self._command = command
        self._on_lease = on_lease
        self._process: asyncio.subprocess.Process | None = None
        self._restart = False
        """Whether the client that runs is to end for the next one's sake."""
        self.leased_at: float | None = None
        """Time of the last acknowledgement, seconds since 1970."""

    async def run(self) -> None:
        while True:
            await self._live()
            await asyncio.sleep(_RESTART_S if not self._restart else 0)

    def ask_again(self) -> None:
        """End the client that runs; the next one starts at once, knows nothing, and asks."""
        self._restart = True
        self._kill()

    async def _live(self) -> None:
        self._restart = False
        parent = os.getpid()
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: die_with_parent(parent),
        )
        assert process.stderr is not None
        try:
            async for line in process.stderr:
                self._said(line)
            code = await process.wait()
            if not self._restart:
                _log.warning("%s ended with %d", " ".join(self._command), code)
        finally:
            self._kill()

    def _said(self, line: bytes) -> None:
        found = _OBTAINED.search(line)
        if found is not None:
            self.leased_at = time.time()
            self._on_lease(found[1].decode())

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it ended just now
                self._process.kill()
