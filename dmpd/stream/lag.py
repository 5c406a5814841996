"""How far a partition is behind, in records, seconds and seconds to go: pure. One ``LagMeter`` per assignment."""

from collections import deque
from typing import Final, NamedTuple

_SAMPLES: Final = 6
"""Answers of Kafka that the speed of catching up is taken from: ten seconds, with one answer in two."""


class Lag(NamedTuple):
    """What is known of one partition; None = not known.

    ``records``: offsets between the next one to commit and the end of the log as readers see it (open transactions are
    not in it). Markers of transactions and holes of compaction count, so at a marker that ends the log it stays 1.

    ``seconds``: age of the oldest record that is not passed (handled, and its verdicts delivered), by its timestamp.
    If it is not fetched yet: how long such a lag has been seen, which is less than its age. 0 = there is none, and the
    client has fetched to the end (markers included).

    ``eta_s``: until ``records`` is 0, at the speed at which it shrank over the last answers of Kafka, what arrives
    included. None also while it does not shrink.
    """

    records: int | None
    seconds: float | None
    eta_s: float | None


class LagMeter:
    """``note`` once per answer of Kafka, ``measure`` at any time."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self._behind_since_s: float | None = None

    def note(self, now_s: float, records: int) -> None:
        """By Kafka's word, ``records`` were missing then."""
        self._samples.append((now_s, records))

    def measure(
        self, now_s: float, *, records: int | None, since_written_s: float | None, has_fetched_all: bool
    ) -> Lag:
        """Take the state of now.

        Args:
            now_s: Monotonic.
            records: See ``Lag``.
            since_written_s: Age of the oldest record in the ring that is not passed; None = the ring is done.
            has_fetched_all: The client's fetch position is at the end.
        """
        is_unfetched = since_written_s is None and bool(records) and not has_fetched_all
        if not is_unfetched:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = now_s
        if since_written_s is not None:
            seconds: float | None = since_written_s
        elif self._behind_since_s is not None:
            seconds = now_s - self._behind_since_s
        else:
            seconds = None if records is None else 0.0
        return Lag(records, seconds, self._eta_s(records))

    def _eta_s(self, records: int | None) -> float | None:
        if not records:
            return None if records is None else 0.0
        (first_s, before), (last_s, after) = (
            (self._samples[0], self._samples[-1]) if self._samples else ((0, 0), (0, 0))
        )
        if last_s <= first_s or after >= before:
            return None
        return records * (last_s - first_s) / (before - after)
