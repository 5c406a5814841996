"""The life of a daemon as one object: its state, and what signals asked for. Handlers only set flags; loops act.

A reload (HUP, or ``reload``) first checks the configuration. A bad one is told and changes nothing; a good one has the
daemon drain as at a stop, and then begin anew in the same process (``daemon_process.py``).
"""

import asyncio
import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from typing import Final, Literal, get_args

from dmpd.runtime import metrics
from dmpd.runtime.config import ConfigError

State = Literal["starting", "ready", "degraded", "draining", "stopped"]
STATES: Final[tuple[State, ...]] = get_args(State)

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
SIGNALS: Final = (*_STOP, signal.SIGHUP)
"""All that a daemon listens to."""

_log = logging.getLogger(__name__)


class Lifecycle:
    """State of one daemon, shared with its health server's thread. Signals: TERM and INT stop, HUP reloads."""

    def __init__(self, program: str, *, check_config: Callable[[], object] | None = None) -> None:
        """``check_config``: reads the configuration anew, raises ``ConfigError``; None = there is nothing to reload."""
        self.program = program
        self.stops = 0
        """TERMs and INTs so far."""
        self._check_config = check_config
        self._restart = False
        self._hups: queue.SimpleQueue[None] = queue.SimpleQueue()  # the one that a signal handler may put into
        self._wakeup_write_fd = -1
        self.wakeup_fd = -1
        """Readable after a signal (``install_signals`` only): for loops that wait in poll."""
        self._lock = threading.Lock()
        self._state: State = "starting"
        self._reason = ""
        self._stopped: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stop_on_its_way = False

    @property
    def stop_requested(self) -> bool:
        """End in order: drain what was accepted."""
        return self.stops > 0 or self._restart

    @property
    def restart_requested(self) -> bool:
        """After that, begin anew. A TERM meanwhile makes a plain stop of it, and is not the second one."""
        return self._restart and self.stops == 0

    @property
    def second_stop(self) -> bool:
        """Somebody asked twice: end now, drained or not."""
        return self.stops > 1

    @property
    def state(self) -> State:
        return self._state

    @property
    def reason(self) -> str:
        """Why the daemon is degraded; empty otherwise."""
        return self._reason

    def set_state(self, state: State, reason: str = "") -> None:
        """Move on and say so once. ``draining`` and ``stopped`` are never left for ``ready`` or ``degraded``."""
        with self._lock:
            if (state, reason) == (self._state, self._reason):
                return
            if self._state in ("draining", "stopped") and state not in ("draining", "stopped"):
                return
            self._state, self._reason = state, reason
            for name in STATES:
                metrics.DAEMON_STATE.labels(name).set(name == state)
        level = logging.WARNING if state == "degraded" else logging.INFO
        _log.log(level, "%s is %s%s", self.program, state, f": {reason}" if reason else "")

    def request_stop(self) -> None:
        """What TERM does, from within. Safe in a signal handler."""
        self.stops += 1
        if self._stopped is not None:
            self._stopped.set()

    def request_stop_from_thread(self) -> None:
        """What TERM does, from another thread than the loop's: once; it never counts as the second one."""
        with self._lock:
            if self.stop_requested or self._is_stop_on_its_way:
                return
            self._is_stop_on_its_way = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.request_stop)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def reload(self) -> None:
        """What HUP does, from another thread than the loop's: check the configuration; then drain and begin anew.

        Blocks for the disk. Without effect while a stop is under way.

        Raises:
            ConfigError: It is bad, or there is none: the daemon goes on with what it has.
        """
        if self._check_config is None:
            raise ConfigError([f"{self.program} has no configuration to reload"])
        try:
            self._check_config()
        except ConfigError:
            metrics.RELOADS_REFUSED.inc()
            raise
        with self._lock:
            if self.stop_requested:
                return
            self._restart = True
        _log.info("the configuration is good: %s drains, then begins anew with it", self.program)
        if self._loop is not None and self._stopped is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._stopped.set)
        elif self._wakeup_write_fd >= 0:
            with contextlib.suppress(BlockingIOError):  # full: it is readable anyway
                os.write(self._wakeup_write_fd, b"\0")

    def install_signals(self) -> None:
        """For loops without asyncio: TERM, INT and HUP set flags and make ``wakeup_fd`` readable."""
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wakeup_fd, self._wakeup_write_fd = read_fd, write_fd
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in _STOP:
            signal.signal(number, lambda *_: self.request_stop())
        signal.signal(signal.SIGHUP, lambda *_: self._hups.put(None))
        self._listen()

    def clear_wakeup(self) -> None:
        """Empty ``wakeup_fd`` after it was readable."""
        try:
            while os.read(self.wakeup_fd, 512):
                continue
        except BlockingIOError:
            return

    def install_async(self, loop: asyncio.AbstractEventLoop) -> None:
        """For asyncio: the same flags, and ``wait_stop`` returns."""
        self._loop = loop
        self._stopped = asyncio.Event()
        if self.stop_requested:
            self._stopped.set()
        for number in _STOP:
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hups.put, None)
        self._listen()

    async def wait_stop(self) -> None:
        """Return when a stop is asked for. Needs ``install_async``."""
        assert self._stopped is not None
        await self._stopped.wait()

    def _listen(self) -> None:
        """Take HUPs from now on, in a thread of its own, and the signals that a former life kept waiting."""
        threading.Thread(target=self._reload_at_hups, name="reload", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        metrics.DAEMON_STARTED.set_to_current_time()

    def _reload_at_hups(self) -> None:
        while True:
            self._hups.get()
            try:
                self.reload()
            except ConfigError as error:
                _log.error("not reloaded, %s goes on with what it has: %s", self.program, "; ".join(error.problems))
            except Exception:  # whatever it is: the next HUP shall be heard
                _log.exception("not reloaded, %s goes on with what it has", self.program)
