"""How much anybody may say: budgets per sender and in all, so that a flood costs a bounded time. Pure.

A sender whose MAC the kernel does not know may be made up, one after the other: strangers share a small budget of
their own and cannot use up that of the devices.
"""

from typing import Final

SENDERS_MAX: Final = 2048
SENDER_PER_S: Final = 20.0
SENDER_BURST: Final = 60.0
"""A television answers each search with up to twenty messages."""
KNOWN_PER_S: Final = 500.0
KNOWN_BURST: Final = 2500.0
"""Two hundred devices answer one search within its second."""
STRANGERS_PER_S: Final = 50.0
STRANGERS_BURST: Final = 200.0


class Bucket:
    """A token bucket: ``burst`` at once, ``per_s`` in the long run. Begins full."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one more is allowed now; takes it if so."""
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class SenderGate:
    """Admits datagrams by their sender. Invariant: at most 2048 senders are remembered, the newest."""

    def __init__(self) -> None:
        self._senders: dict[str, Bucket] = {}
        self._known = Bucket(per_s=KNOWN_PER_S, burst=KNOWN_BURST)
        self._strangers = Bucket(per_s=STRANGERS_PER_S, burst=STRANGERS_BURST)

    def admits(self, ip: str, now_s: float, *, known: bool) -> bool:
        """Whether a datagram from ``ip`` is to be looked at; ``known`` = the kernel has its MAC."""
        sender = self._senders.get(ip)
        if sender is None:
            if len(self._senders) >= SENDERS_MAX:
                del self._senders[next(iter(self._senders))]
            sender = self._senders[ip] = Bucket(per_s=SENDER_PER_S, burst=SENDER_BURST)
        return sender.take(now_s) and (self._known if known else self._strangers).take(now_s)
