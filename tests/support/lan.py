"""LAN sources under test: a recorder that runs them on a loop of their own, and the lab's LAN with its programs.

The recorder's thread may live in a network namespace: the sources then see that namespace's kernel, while the test
stays where it is.
"""

import asyncio
import ctypes
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dmpd.lab import lan_tools as tools
from dmpd.lab.lan import Dut, LanLab, available
from dmpd.local_registry.source import Evidence, LanSignal, LanSource
from tests.support.platform import until
from tests.support.services import unavailable

POLL_S = 0.005


def drop_capabilities() -> None:
    """Take every privilege of root from the calling thread, and only from it: sources must not need any."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class Recorder:
    """Consumes sources and keeps what they say, with the monotonic time at which they said it.

    In a namespace the sources run without any capability, as they do on a RAE.
    """

    def __init__(self, make: Callable[[], Sequence[LanSource]], *, namespace: str | None = None) -> None:
        self._make = make
        self._namespace = namespace
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sources", daemon=True)
        self.sources: Sequence[LanSource] = ()
        self.said: list[tuple[float, LanSignal]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the sources' thread did not start"
        self._check()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the sources' thread did not end"
        self._check()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the sources' loop and return its result."""

        async def inside() -> Any:
            return function()

        return self.run(inside())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def mark(self) -> int:
        """Where the record ends now; for ``wait_for``'s ``since``."""
        return len(self.said)

    def evidence(self, *, since: int = 0, **fields: object) -> list[Evidence]:
        """All evidence since a mark whose fields have these values."""
        return [one for _at_s, one in self._matching(since, fields)]

    def wait_for(self, *, since: int = 0, timeout_s: float = 30.0, **fields: object) -> tuple[float, Evidence]:
        """Wait for evidence with these field values; returns when it was said, and what."""
        return self._wait(lambda: next(iter(self._matching(since, fields)), None), timeout_s, str(fields))

    def wait_for_signal(self, signal: LanSignal, *, since: int = 0, timeout_s: float = 30.0) -> float:
        return self._wait(
            lambda: next((at_s for at_s, one in self.said[since:] if one == signal), None), timeout_s, str(signal)
        )

    def _wait(self, look: Callable[[], Any], timeout_s: float, what: str) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while (found := look()) is None:
            self._check()
            said = "\n".join(str(one) for _at_s, one in self.said)
            assert time.monotonic() < deadline_s, f"not said in {timeout_s} s: {what}; said:\n{said}"
            time.sleep(POLL_S)
        return found

    def _matching(self, since: int, fields: dict[str, object]) -> Iterator[tuple[float, Evidence]]:
        for at_s, one in self.said[since:]:
            if isinstance(one, Evidence) and all(getattr(one, name) == value for name, value in fields.items()):
                yield at_s, one

    def _check(self) -> None:
        if self._error is not None:
            raise AssertionError("a source raised") from self._error

    def _run(self) -> None:
        try:
            if self._namespace is not None:
                tools.enter_namespace(self._namespace)
                drop_capabilities()
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _main(self) -> None:
        self.sources = self._make()
        self._tasks = [asyncio.create_task(self._consume(source)) for source in self.sources]
        await asyncio.sleep(0)  # each has had its first look when the test goes on
        self._ready.set()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        errors = [one for one in ended if not isinstance(one, asyncio.CancelledError)]
        if errors:
            raise AssertionError(f"a source ended by itself: {errors[0]!r}") from errors[0]

    async def _consume(self, source: LanSource) -> None:
        signals = source.signals()
        try:
            async for signal in signals:
                self.said.append((time.monotonic(), signal))
        finally:
            await signals.aclose()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()


class RunningLan:
    """The lab's LAN with its programs as children of this process."""

    def __init__(self, lab: LanLab) -> None:
        self.lab = lab
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def lease_file(self) -> Path:
        return self.lab.lease_file

    @property
    def lease_socket(self) -> Path:
        return self.lab.state_dir / "lease.sock"

    def start_dnsmasq(self, *, hooked: bool = False) -> None:
        """Start it, and wait until it opened its lease file; ``hooked`` = it runs ``lease_hook`` too."""
        self._start("dnsmasq", self.lab.dnsmasq_command(self.lease_socket if hooked else None))
        until(self.lease_file.exists, "dnsmasq has opened its lease file", said=lambda: self.log("dnsmasq"))

    def start_dut(self, dut: Dut) -> None:
        self._start(dut.name, self.lab.dut_command(dut.name))

    def stop(self, name: str) -> None:
        child = self._children.pop(name)
        child.terminate()
        child.wait(5)

    def router(self, *argv: str) -> str:
        """Run a command in the router's namespace."""
        return tools.run(self.lab.router_command(argv))

    def in_dut(self, dut: Dut, *argv: str) -> str:
        """Run a command in a DUT's namespace."""
        return tools.run(["ip", "netns", "exec", dut.namespace, *argv])

    def release(self, dut: Dut) -> None:
        """Have its DHCP client give its lease back; before it has bound it, it would only stop asking."""

        def has_bound() -> bool:
            return "inet " in self.in_dut(dut, "ip", "-4", "address", "show", "dev", "eth0")

        until(has_bound, f"{dut.name} has its address", said=lambda: self.log(dut.name))
        self._children[dut.name].send_signal(signal.SIGUSR2)

    def log(self, name: str) -> str:
        return (self.lab.state_dir / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for name in list(self._children):
            self.stop(name)

    def _start(self, name: str, command: list[str]) -> None:
        assert name not in self._children
        with (self.lab.state_dir / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextmanager
def running_lan(*, devices: int = 3) -> Iterator[RunningLan]:
    """A LAN of its own for one test: namespaces only, no program runs yet. Skips where there can be none."""
    reason = available()
    if reason is not None:
        unavailable(f"no LAN of namespaces: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="dmpd-lan-"))
    lab = LanLab(f"dmpd-t{uuid.uuid4().hex[:8]}", folder, devices)
    try:
        lab.up()
        lan = RunningLan(lab)
        try:
            yield lan
        finally:
            lan.close()
    finally:
        lab.down()
        shutil.rmtree(folder)
