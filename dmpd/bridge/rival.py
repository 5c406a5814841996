"""Whether a second bridge takes our name over at the broker. Pure.

A broker says so (0x8E), but Mosquitto 2.0.11 hangs up without a word. There it shows in this: connections end within
seconds, one after the other, though the broker is there at each next attempt; one that died takes none for a while.
"""

from typing import Final

from dmpd.runtime.mqtt import SESSION_TAKEN_OVER

STABLE_S: Final = 60.0
"""A connection that lived so long had its name for itself."""
SHORT_S: Final = 5.0
SHORT_MAX: Final = 3


class Rival:
    """State over the connections' lives."""

    def __init__(self) -> None:
        self._short = 0

    def broker_away(self) -> None:
        """A connection could not be made: the broker had ended."""
        self._short = 0

    def took_over(self, reason_code: int, lived_s: float) -> bool:
        """Note that the broker ended a connection; whether somebody else has our name now.

        Args:
            reason_code: The broker's, 0 = it sent none.
            lived_s: How long the connection was of use.
        """
        if lived_s > STABLE_S:
            self._short = 0
        elif lived_s < SHORT_S and reason_code == 0:
            self._short += 1
            return self._short >= SHORT_MAX
        return reason_code == SESSION_TAKEN_OVER
