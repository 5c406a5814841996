"""A daemon as a process: it ends with supervisord, and begins anew in place after a reload."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from dmpd.runtime.lifecycle import SIGNALS, Lifecycle
from dmpd.runtime.process import die_with_parent

UNDER_SUPERVISORD: Final = "SUPERVISOR_ENABLED"
"""Environment variable that supervisord sets for the programs that it starts."""

_log = logging.getLogger(__name__)


def serve(program: str, run: Callable[[Lifecycle], int], *, check_config: Callable[[], object]) -> int:
    """Run a daemon to its end and return its exit code; after a reload it begins anew in place and does not return.

    Under supervisord it drains when supervisord dies (``kill -9``), because nobody could stop it any more, and the next
    supervisord's daemon would find it in its place.

    Args:
        run: The daemon; blocks until the lifecycle's stop.
        check_config: Reads the configuration as the next life would; raises ``ConfigError``.
    """
    if UNDER_SUPERVISORD in os.environ:
        die_with_parent(os.getppid(), signal.SIGTERM)
    lifecycle = Lifecycle(program, check_config=check_config)
    code = run(lifecycle)
    if lifecycle.restart_requested:
        _begin_anew()
    return code


def _begin_anew() -> NoReturn:
    """Execute this command once more: same pid, same arguments, new configuration.

    TERM, INT and HUP wait, blocked, until the new life listens to them (``Lifecycle``): by default they would end it.
    """
    _log.info("drained; beginning anew")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > sys.stderr.fileno():
            with contextlib.suppress(OSError):  # that of the listing itself is closed
                os.set_inheritable(descriptor, False)  # Python's own are so already, a C library may have forgotten
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
