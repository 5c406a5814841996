"""A thread that watches something while a run goes on."""

import logging
import threading
from collections.abc import Callable
from typing import Final

_JOIN_S: Final = 10.0

_log = logging.getLogger(__name__)


class WatchThread:
    """``start`` once, then ``stop``, which is allowed without ``start`` too."""

    def __init__(self, name: str, watch: Callable[[threading.Event], None]) -> None:
        """``watch`` returns soon after its argument is set, and has closed by then what it opened."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=watch, args=(self._stopping,), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when it has ended, or says so after some seconds: what it uses must not be touched then. Blocks."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            _log.warning("%s: not over within %g s", self._thread.name, _JOIN_S)
