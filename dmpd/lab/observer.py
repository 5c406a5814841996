"""Looks at every hop in the order that makes "lost" true, round by round, in a thread of its own.

Order matters: what left an outbox before we count Kafka must be counted there; what the group committed after we
counted Kafka must be in the database when we ask it next.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from dmpd.lab.observation import (
    DatabaseTotals,
    DatabaseView,
    EdgeTotals,
    LanDevice,
    Observation,
    lost_changes,
)
from dmpd.lab.tally import KafkaTally

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_ROUND_S: Final = 0.5
_CATCH_UP_S: Final = 2.0
_DELAYS_MAX: Final = 100_000
_SNAPSHOTS_MAX: Final = 1_000


class KafkaOffsets(Struct, frozen=True):
    """By partition: where the topic ends, and what the Cloud Registry's group has committed."""

    ends: Mapping[int, int]
    committed: Mapping[int, int]

    @property
    def lag(self) -> int:
        return sum(max(0, end - self.committed.get(partition, 0)) for partition, end in self.ends.items())


class Probes(Struct, frozen=True, kw_only=True):
    """How to ask each party. Each blocks for at most some seconds and raises ``OSError`` when nobody answers."""

    edge: Callable[[], EdgeTotals]
    offsets: Callable[[], KafkaOffsets]
    bridge_in_flight: Callable[[], int]
    ring_bytes: Callable[[], int]
    database: DatabaseView


class Observer:
    """Owns the tally and the newest observation. ``start`` and ``stop`` from one thread, ``latest`` from any."""

    def __init__(self, probes: Probes, tally: KafkaTally) -> None:
        self._probes = probes
        self._tally = tally
        self._counted: deque[tuple[Mapping[int, int], int]] = deque(maxlen=_SNAPSHOTS_MAX)
        self._settled = 0
        self._latest = Observation()
        self._delays_ms: deque[float] = deque(maxlen=_DELAYS_MAX)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-observer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for its round, bounded."""
        self._stop.set()
        self._thread.join(10.0)

    @property
    def latest(self) -> Observation:
        return self._latest

    def take_delays_ms(self) -> list[float]:
        """Change → row of the rows seen since the last call."""
        taken = []
        while self._delays_ms:
            taken.append(self._delays_ms.popleft())
        return taken

    def look(self) -> Observation:
        """One round over all parties; blocks for as long as they take to answer or not to."""
        begun_s = time.monotonic()
        edge = _ask(self._probes.edge)
        offsets = _ask(self._probes.offsets)
        in_kafka = self._count_up_to(offsets.ends) if offsets is not None else None
        if offsets is not None:
            self._settle(offsets.committed)
            if in_kafka is not None:
                self._counted.append((offsets.ends, in_kafka))
        database = self._ask_database()
        lost = lost_changes(
            edge=edge,
            in_kafka=in_kafka,
            settled=self._settled,
            revs=database.revs if database is not None else None,
        )
        return Observation(
            begun_s=begun_s,
            edge=edge,
            in_kafka=in_kafka,
            database=database,
            lag=offsets.lag if offsets is not None else None,
            lost=lost,
            in_flight=_ask(self._probes.bridge_in_flight),
            ring_bytes=_ask(self._probes.ring_bytes),
            newest=tuple(self._tally.newest),
            lan=self._ask_lan(),
        )

    def _run(self) -> None:
        while not self._stop.wait(_ROUND_S):
            try:
                self._latest = self.look()
            except Exception:
                _log.exception("a round of looking failed; the next one follows")

    def _count_up_to(self, ends: Mapping[int, int]) -> int | None:
        deadline_s = time.monotonic() + _CATCH_UP_S
        while not self._tally.has_reached(ends):
            if time.monotonic() > deadline_s:
                return None
            self._tally.read_on()
        return self._tally.changes

    def _settle(self, committed: Mapping[int, int]) -> None:
        """Move on to the newest count that the group has committed past."""
        while self._counted:
            ends, changes = self._counted[0]
            if any(committed.get(partition, 0) < end for partition, end in ends.items()):
                return
            self._settled = changes
            self._counted.popleft()

    def _ask_database(self) -> DatabaseTotals | None:
        try:
            totals = self._probes.database.totals()
            self._delays_ms.extend(self._probes.database.delays_ms())
        except OSError:
            return None
        return totals

    def _ask_lan(self) -> Sequence[LanDevice]:
        return _ask(self._probes.database.lan_devices) or ()


def _ask(probe: Callable[[], _T]) -> _T | None:
    try:
        return probe()
    except OSError:
        return None
