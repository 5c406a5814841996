"""The process that forks workers: fresh by exec, so no Kafka client ever existed in it (a fork beside one is unsafe).

It imports the handler's module once and forks a worker per request in milliseconds. Parent side: ``ForkServer``; the
other side: ``main``, run as ``python -m dmpd.stream.fork_server``. Single-threaded. It ignores TERM, INT and HUP (a
supervisor signals the whole group) and dies with the parent, its workers die with it (PR_SET_PDEATHSIG).
"""

import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from typing import Any, Final

import msgspec

from dmpd.runtime import log
from dmpd.runtime.process import die_with_parent
from dmpd.runtime.settings import LogSettings
from dmpd.stream.frames import Position

_log = logging.getLogger(__name__)
_MESSAGE_BYTES_MAX: Final = 128 * 1024
_REAP_EVERY_S: Final = 1.0
_START_TIMEOUT_S: Final = 30.0
_FORK_TIMEOUT_S: Final = 5.0
_STATUSES_MAX: Final = 1000
"""Of workers that ended and that nobody asked for: those that the parent killed itself."""
_IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Hello(msgspec.Struct, array_like=True):
    """First message down: what workers will run. Answered by ``Answer`` once it is imported."""

    handler: str
    argument: bytes
    import_path: list[str]
    log: LogSettings
    program: str


class Fork(msgspec.Struct, array_like=True, tag="f"):
    """Fork a worker; comes with two descriptors, its ring's memory and its end of the channel."""

    partition: int
    frame: int
    nth: int
    batch_records_max: int
    batch_bytes_max: int


class HowEnded(msgspec.Struct, array_like=True, tag="e"):
    """Ask how a worker that is dead ended: only its parent, the fork server, is told."""

    pid: int


class Answer(msgspec.Struct, array_like=True):
    """``pid`` of the new worker (with its pidfd), 0 if that was ``Hello``; or the ``error``. ``status`` to HowEnded."""

    pid: int
    error: str = ""
    status: int | None = None


class ForkServerError(Exception):
    """The fork server ended, does not answer, or could not do it; the text says which."""


class HandlerImportError(ForkServerError):
    """The handler cannot be imported. Permanent: it is a mistake of the program, not of the moment."""


class ForkServer:
    """The parent's side. Call it from the main thread: when the thread that started it ends, the kernel kills it."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it has imported the handler. Blocks up to 30 s.

        Raises:
            HandlerImportError: The handler's module or function cannot be had.
            ForkServerError: The process does not come up.
        """
        try:
            self._spawn()
        except OSError as error:  # no memory, too many processes or descriptors: another time it may go
            raise ForkServerError(f"no fork server can be started: {error}") from error
        answer, _ = self._ask(self._hello, [])
        if answer.error:
            raise HandlerImportError(answer.error)
        assert self._socket is not None
        self._socket.settimeout(_FORK_TIMEOUT_S)

    def _spawn(self) -> None:
        """Start the process. Raises ``OSError``, and nothing is left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "dmpd.stream.fork_server", str(theirs.fileno()), str(os.getpid())]
        # Blocked until it ignores them itself: a group's TERM must not end it in between.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self._socket = ours
        ours.settimeout(_START_TIMEOUT_S)

    def fork(self, request: Fork, *, ring_fd: int, channel: socket.socket) -> tuple[int, int]:
        """Fork a worker, which gets duplicates of both descriptors. Returns its pid and a pidfd the caller owns."""
        answer, fds = self._ask(request, [ring_fd, channel.fileno()])
        if answer.error or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise ForkServerError(answer.error or "no pidfd came")
        return answer.pid, fds[0]

    def status_of(self, pid: int) -> int | None:
        """How a worker that is dead ended, as ``waitpid`` gives it; None = not known. Blocks for a round trip."""
        try:
            answer, _ = self._ask(HowEnded(pid), [])
        except ForkServerError as error:
            _log.warning("worker %d ended, how is not known: %s", pid, error)
            return None
        return answer.status

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Kill it and wait for its death. Its workers die too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, message: Hello | Fork | HowEnded, fds: list[int]) -> tuple[Answer, list[int]]:
        """One that does not answer is killed: its answer, coming late, would be taken for the next one's."""
        assert self._socket is not None
        assert self._process is not None
        try:
            socket.send_fds(self._socket, [msgspec.msgpack.encode(message)], fds)
            data, received, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES_MAX, 1)
        except OSError as error:
            self._process.kill()
            raise ForkServerError(f"fork server does not answer: {error}") from error
        if not data:
            raise ForkServerError("fork server ended")
        return msgspec.msgpack.decode(data, type=Answer), list(received)


def resolve(name: str) -> Any:
    """The object behind ``"package.module:function"``. Raises ImportError, AttributeError or ValueError."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f'expected "package.module:function", got "{name}"')
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    """Serve until the parent closes the socket."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    hello = msgspec.msgpack.decode(control.recv(_MESSAGE_BYTES_MAX), type=Hello)
    sys.path[:] = hello.import_path
    log.setup(hello.log, hello.program)
    try:
        factory = resolve(hello.handler)
    except Exception as error:
        error_text = "".join(traceback.format_exception_only(error)).strip()
        control.send(msgspec.msgpack.encode(Answer(0, f"cannot import {hello.handler}: {error_text}")))
        return
    from dmpd.stream import worker  # noqa: F401, PLC0415 - imported before the first fork, after the parent's path is set

    gc.collect()
    gc.freeze()  # what is there now is shared by all workers; a collection must not copy it
    _interrupt_nobody()
    control.send(msgspec.msgpack.encode(Answer(0)))
    _serve(control, factory, hello)


def _interrupt_nobody() -> None:
    """Have the kernel run woken workers (they inherit it) beside the parent, or after it, never in its place.

    As long as a processor is idle nothing changes. Else a record's worker would interrupt the parent in the middle of
    its turn, for a switch there and back: where records trickle in, a fifth of all the processor time.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox that forbids it; it only costs processor time
        _log.warning("workers keep the usual scheduling: %s", error)


def _serve(control: socket.socket, factory: Any, hello: Hello) -> None:
    readable = select.poll()
    readable.register(control, select.POLLIN)
    statuses: dict[int, int] = {}
    while True:
        if not readable.poll(_REAP_EVERY_S * 1000):
            _reap(statuses)
            continue
        data, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES_MAX, 2)
        if not data:
            return
        request: Fork | HowEnded = msgspec.msgpack.decode(data, type=Fork | HowEnded)
        if isinstance(request, HowEnded):
            _reap(statuses)
            answer = Answer(request.pid, status=statuses.pop(request.pid, None))
            control.send(msgspec.msgpack.encode(answer))
        else:
            _answer_fork(control, request, fds, factory, hello)


def _answer_fork(control: socket.socket, request: Fork, fds: list[int], factory: Any, hello: Hello) -> None:
    pid, error = _fork(request, fds, factory, hello)
    for fd in fds:
        os.close(fd)
    # Opened before it can be reaped, so the number cannot have become another process.
    pidfds = [os.pidfd_open(pid)] if pid else []
    socket.send_fds(control, [msgspec.msgpack.encode(Answer(pid, error))], pidfds)
    for fd in pidfds:
        os.close(fd)


def _fork(request: Fork, fds: list[int], factory: Any, hello: Hello) -> tuple[int, str]:
    server_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return 0, f"fork: {error}"
    if pid:
        return pid, ""
    status = 70
    try:
        die_with_parent(server_pid)
        ring_fd, channel_fd = _keep_only(fds)
        # Held to the last: its end tells the parent that this process is past the point of no return.
        channel = socket.socket(fileno=channel_fd)
        from dmpd.stream import worker  # noqa: PLC0415 - see main

        status = worker.run(
            factory,
            hello.argument,
            partition=request.partition,
            ring_fd=ring_fd,
            channel=channel,
            start=Position(request.frame, request.nth),
            bounds=worker.Bounds(request.batch_records_max, request.batch_bytes_max),
        )
    except BaseException:  # the fork must never run on into the server's loop
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # no interpreter teardown: it belongs to the server


def _keep_only(fds: list[int]) -> tuple[int, int]:
    """Close every descriptor but the standard ones and ``fds``."""
    low = 3
    for fd in sorted(fds):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    return fds[0], fds[1]


def _reap(statuses: dict[int, int]) -> None:
    """Bury who is dead; how they ended is kept for a while. A number that comes again means the newest."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            statuses.pop(pid, None)
            statuses[pid] = status
    while len(statuses) > _STATUSES_MAX:
        del statuses[next(iter(statuses))]


if __name__ == "__main__":
    main()
