"""Single keys from a terminal, without waiting for Enter, and the terminal as before afterwards."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


class Keyboard:
    """Reads keys from standard input; without a terminal there are never any."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def key(self, timeout_s: float) -> str | None:
        """The next key, or ``None`` after ``timeout_s``."""
        if self._descriptor is None:
            select.select([], [], [], timeout_s)
            return None
        ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
        if not ready:
            return None
        pressed = os.read(self._descriptor, 1)
        if not pressed:  # the terminal is gone
            self._descriptor = None
            return None
        return pressed.decode(errors="replace")


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Key by key as long as the context lasts. Ctrl-C stays a signal."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
