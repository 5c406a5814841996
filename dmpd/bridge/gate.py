"""Whether to read from the broker: bounds what Kafka has not confirmed yet. Pure.

MQTT's own window is no bound (Mosquitto 2.0.11 sends a whole new one with every PUBACK), so the bridge stops reading
the socket instead. A socket stopped for long would look dead to both sides; before that the bridge leaves, and is back
when Kafka has answered.
"""

from enum import Enum


class GateState(Enum):
    OPEN = "open"
    PAUSED = "paused"
    LEAVE = "leave"
    """Paused for so long that the connection must go before the keepalive ends it."""


class Gate:
    """Counts what is in flight. Closes above a bound, opens below half of both."""

    def __init__(self, *, bytes_max: int, messages_max: int, leave_after_s: float) -> None:
        assert bytes_max > 0
        assert messages_max > 0
        self._bytes_max = bytes_max
        self._messages_max = messages_max
        self._leave_after_s = leave_after_s
        self.bytes = 0
        self.messages = 0
        self._closed_since_s: float | None = None
        self._closed_s = 0.0

    def added(self, size_bytes: int, now_s: float) -> None:
        self.bytes += size_bytes
        self.messages += 1
        if self._closed_since_s is None and (self.bytes > self._bytes_max or self.messages > self._messages_max):
            self._closed_since_s = now_s

    def removed(self, size_bytes: int, now_s: float, *, messages: int = 1) -> None:
        """Take ``messages`` of together ``size_bytes`` off."""
        self.bytes -= size_bytes
        self.messages -= messages
        assert self.bytes >= 0
        assert self.messages >= 0
        self._reopen(now_s)

    def _reopen(self, now_s: float) -> None:
        low = self.bytes <= self._bytes_max // 2 and self.messages <= self._messages_max // 2
        if self._closed_since_s is not None and low:
            self._closed_s += now_s - self._closed_since_s
            self._closed_since_s = None

    def clear(self, now_s: float) -> None:
        """Nothing is in flight any more: the producer is gone."""
        self.bytes = self.messages = 0
        self._reopen(now_s)

    @property
    def is_open(self) -> bool:
        return self._closed_since_s is None

    def state(self, now_s: float) -> GateState:
        if self._closed_since_s is None:
            return GateState.OPEN
        return GateState.LEAVE if now_s - self._closed_since_s > self._leave_after_s else GateState.PAUSED

    def closed_s(self, now_s: float) -> float:
        """Seconds closed since the start, the present closure included."""
        return self._closed_s + (now_s - self._closed_since_s if self._closed_since_s is not None else 0.0)
