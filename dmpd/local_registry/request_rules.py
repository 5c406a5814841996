"""Who may ask what, and for how long a request lives. Pure; ``now_s`` is monotonic, passed in."""

from typing import Final

from dmpd.local_registry.settings import RequestSettings
from dmpd.model.invalid import InvalidMessageError
from dmpd.model.messages import Request
from dmpd.model.requests import Args, args_of, lifetime_s
from dmpd.model.topics import RAE_SESSION

STALL_MIN_S: Final = 5.0
STALL_SHADOW_S: Final = 5.0

NOT_REPEATABLE: Final = frozenset({"wake", "app.launch", "app.stop", "attributes.set"})
"""Verbs whose second execution would be seen by a device or a user."""


class RefusedError(Exception):
    """The request is refused: nothing of it was done. The text is for the requester."""


def admit(request: Request, requester: str, rules: RequestSettings, *, blind_s: float) -> Args:
    """The arguments of ``request`` if ``requester`` may ask for it here.

    Args:
        request: Decoded; of whom and for whom its topic says.
        requester: A principal; the broker lets nobody publish under another's name.
        rules: The RAE's configuration.
        blind_s: For how long still it is not known what ran before; then what cannot be repeated is refused.

    Raises:
        RefusedError: With the sentence for the requester.
    """
    try:
        args = args_of(request)
    except InvalidMessageError as error:
        raise RefusedError(error.detail) from error
    for_rae = request.session == RAE_SESSION
    if request.verb not in (rules.rae_verbs if for_rae else rules.session_verbs):
        raise RefusedError(f"{request.verb} is switched off on this RAE")
    if for_rae and not any(_covers(pattern, requester) for pattern in rules.rae_verbs_from):
        raise RefusedError(f"{requester} may not ask the RAE itself (requests.rae_verbs_from)")
    if blind_s > 0 and request.verb in NOT_REPEATABLE:
        minutes = int(blind_s // 60) + 1
        raise RefusedError(f"the RAE lost its store: what ran before is not known for another {minutes} min")
    return args


def _covers(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


class Lateness:
    """How long a message may have lain unread when it is read: as long as the loop stood still (SIGSTOP, a long stall).

    The lifetime that came with it was right when it was sent, so that time is taken off. ``alive`` is called each
    second; right after a stall messages and timers are served in any order, hence the shadow of some seconds.
    """

    def __init__(self, now_s: float) -> None:
        self._alive_s = now_s
        self._stall_s = 0.0
        self._until_s = now_s

    def alive(self, now_s: float) -> None:
        stall_s = now_s - self._alive_s
        if stall_s > STALL_MIN_S:
            self._stall_s = stall_s
            self._until_s = now_s + STALL_SHADOW_S
        self._alive_s = now_s

    def of_now(self, now_s: float) -> float:
        """Seconds by which what is read now may be late."""
        stall_s = now_s - self._alive_s
        if stall_s > STALL_MIN_S:
            return stall_s
        return self._stall_s if now_s < self._until_s else 0.0

    def deadline_s(self, expiry_s: int | None, now_s: float) -> float:
        """Until when a request read now with ``expiry_s`` left may begin."""
        return now_s + lifetime_s(expiry_s) - self.of_now(now_s)
