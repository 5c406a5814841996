"""What an operator asks of a running stream: from any thread into the loop's, served once per turn, answered.

``Control`` is given to ``run`` and its ``actions`` to a ``HealthServer``; what a verb does stands in ``operations``.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from dmpd.runtime.health import Action, ActionRefusedError

Verb = Literal["pause", "resume", "skip"]
VERBS: Final[tuple[Verb, ...]] = ("pause", "resume", "skip")
_ANSWER_TIMEOUT_S: Final = 8.0
"""The loop may be blocked: a revoke takes 1 s, an assignment asks for committed offsets."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of a verb: one partition, or all that this instance owns."""

    partition: int | None = None
    all: bool = False

    def __post_init__(self) -> None:
        if self.all == (self.partition is not None):
            raise ValueError('say {"partition": N} or {"all": true}')


class Request(msgspec.Struct, frozen=True):
    verb: Verb
    target: Target


class Result(msgspec.Struct, frozen=True):
    """What became of one partition."""

    changed: bool
    said: str


CarryOut = Callable[[Request], Mapping[int, Result]]
"""Does it, in the loop's thread. Raises ``ActionRefusedError``."""


class _Waiting:
    """One request and who waits for it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = threading.Event()
        self.result: Mapping[int, Result] = {}
        self.refusal: ActionRefusedError | None = None


class Control:
    """``ask`` from any thread but the loop's; ``serve`` from the loop's only."""

    def __init__(self, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> None:
        self._timeout_s: Final = timeout_s
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()

    def actions(self) -> Mapping[str, Action]:
        """The verbs as a health server offers them: ``/stream/pause``, ``/stream/resume``, ``/stream/skip``."""
        return {f"/stream/{verb}": self._action(verb) for verb in VERBS}

    def ask(self, verb: Verb, target: Target) -> Mapping[int, Result]:
        """Have it done; blocks until it is, or for the timeout.

        Raises:
            ActionRefusedError: Not for us, not now, or the loop did not come to it: then it is not done later either.
        """
        waiting = _Waiting(Request(verb, target))
        with self._lock:
            self._queue.append(waiting)
        if not waiting.done.wait(self._timeout_s) and self._withdraw(waiting):
            raise ActionRefusedError(
                503, f"the stream does not answer within {self._timeout_s:g} s, so nothing was done; try again"
            )
        waiting.done.wait()  # the loop has it already: it answers at once
        if waiting.refusal is not None:
            raise waiting.refusal
        return waiting.result

    def serve(self, carry_out: CarryOut) -> None:
        """Do what was asked for since the last call. Does not block."""
        while self._queue:
            with self._lock:
                waiting = self._queue.popleft() if self._queue else None
            if waiting is None:
                return
            try:
                waiting.result = carry_out(waiting.request)
            except ActionRefusedError as refusal:
                waiting.refusal = refusal
            except BaseException:
                waiting.refusal = ActionRefusedError(500, "it failed; the log says why")
                raise
            finally:
                waiting.done.set()

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take a request back; False = the loop has begun it."""
        with self._lock:
            if waiting not in self._queue:
                return False
            self._queue.remove(waiting)
            return True

    def _action(self, verb: Verb) -> Action:
        def act(arguments: Mapping[str, Any]) -> Any:
            try:
                target = msgspec.convert(arguments, Target)
            except msgspec.ValidationError as error:
                raise ActionRefusedError(400, str(error)) from error
            result = self.ask(verb, target)
            return {"partitions": {str(number): one for number, one in sorted(result.items())}}

        return act
