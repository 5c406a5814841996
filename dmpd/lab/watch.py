"""``dmpd lab up --watch``: the screen, redrawn four times a second, and its keys."""

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live

from dmpd.lab.keyboard import Keyboard, keyboard
from dmpd.lab.kill import kill, killable
from dmpd.lab.observer import Observer
from dmpd.lab.platform import Lab
from dmpd.lab.server import ServerError
from dmpd.lab.view import count_line, delay_line, screen

_REDRAW_S: Final = 0.25
_PLAIN_LINE_S: Final = 5.0
_DELAYS_S: Final = 60.0


class Watch:
    """Shows one running lab until a signal or the key ``q``."""

    def __init__(
        self, lab: Lab, observer: Observer, *, hints: Sequence[str], stop_requested: Callable[[], bool]
    ) -> None:
        self._lab = lab
        self._observer = observer
        self._hints = hints
        self._stop_requested = stop_requested
        self._delays: deque[tuple[float, float]] = deque()
        self._message = ""

    def run(self) -> None:
        """Blocks until the end. Without a terminal it prints a line every 5 s instead of the screen."""
        console = Console()
        with keyboard() as keys:
            if console.is_terminal:
                self._run_screen(console, keys)
            else:
                self._run_lines(keys)

    def _run_screen(self, console: Console, keys: Keyboard) -> None:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while not self._stop_requested():
                parts = self._lab.supervisor.states()
                delays_ms = self._recent_delays_ms()
                seen = self._observer.latest
                live.update(screen(seen, parts, delays_ms, message=self._message, hints=self._hints), refresh=True)
                if not self._handle(keys.key(_REDRAW_S)):
                    return

    def _run_lines(self, keys: Keyboard) -> None:
        next_line_s = 0.0
        while not self._stop_requested():
            if time.monotonic() >= next_line_s:
                next_line_s = time.monotonic() + _PLAIN_LINE_S
                print(f"{count_line(self._observer.latest)} · {delay_line(self._recent_delays_ms())}", flush=True)
            if not self._handle(keys.key(_REDRAW_S)):
                return

    def _handle(self, key: str | None) -> bool:
        """Do what ``key`` stands for; returns whether to go on."""
        if key == "k":
            part = random.choice(killable(self._lab.info.parts))  # noqa: S311 - a game of chance, not a secret
            try:
                self._message = f"{time.strftime('%H:%M:%S')} kill -9 {part} (pid {kill(self._lab.folder, part)})"
            except ServerError as error:
                self._message = str(error)
        return key != "q"

    def _recent_delays_ms(self) -> list[float]:
        now_s = time.monotonic()
        self._delays.extend((now_s, delay_ms) for delay_ms in self._observer.take_delays_ms())
        while self._delays and self._delays[0][0] < now_s - _DELAYS_S:
            self._delays.popleft()
        return [delay_ms for _, delay_ms in self._delays]
