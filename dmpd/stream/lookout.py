"""Looks at all partitions twice a second: how far behind they are, and whether they still move. Parent's thread only.

The decisions are pure (lag, fetch_watch, nothing_moves); this file brings what they need together.
"""

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dmpd.runtime.settings import KafkaSettings
from dmpd.stream.fetch_watch import Cure, FetchWatch
from dmpd.stream.lag import Lag, LagMeter
from dmpd.stream.nothing_moves import NothingMoves, Standing
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.watermarks import Watermarks

_ASK_EVERY_S: Final = 2.0
_LOOKS_MIN: Final = 4
"""Questions to the broker before a partition can be called stopped, at least."""


class NothingMovesError(Exception):
    """Another process is the last cure."""


class Stopped(NamedTuple):
    """A partition that the client no longer fetches, and what to do about it."""

    number: int
    cure: Cure
    detail: str


class Lookout:
    """Owns the thread that asks the broker. ``look`` decides, ``picture`` tells."""

    def __init__(self, kafka: KafkaSettings, settings: StreamSettings) -> None:
        self._settings: Final = settings
        every_s = min(_ASK_EVERY_S, settings.fetch_silence_timeout_s / _LOOKS_MIN)
        self._watermarks = Watermarks(kafka, settings.topic, every_s=every_s)
        self._nothing_moves = NothingMoves(settings.nothing_moves_timeout_s)
        self._watches: dict[int, FetchWatch] = {}
        self._meters: dict[int, tuple[int, LagMeter]] = {}
        self._positions: Mapping[int, int] = {}
        self._noted_at_s = 0.0

    def start(self) -> None:
        self._watermarks.start()

    def stop(self, timeout_s: float) -> bool:
        """False = its thread does not end in time."""
        return self._watermarks.stop(timeout_s)

    def look(
        self,
        partitions: Mapping[int, Partition],
        positions: Mapping[int, int],
        now_s: float,
        *,
        is_fetching: bool,
        is_producing: bool,
    ) -> list[Stopped]:
        """Take the state of now; returns which partitions are to be begun anew.

        Args:
            partitions: All that are owned.
            positions: Where the client fetches, by its statistics.
            now_s: Monotonic.
            is_fetching: There is a client and it is to fetch: no drain.
            is_producing: Something waits until the broker has taken it.

        Raises:
            NothingMovesError: No partition has moved for ``nothing_moves_timeout_s``; says what is known of them.
        """
        self._positions = positions
        self._watermarks.watch(partitions, starts=[n for n, p in partitions.items() if p.ledger.next_offset is None])
        self._keep(partitions)
        self._note_lags(partitions)
        answer = self._watermarks.fresh(now_s) if is_fetching else None
        ends = {} if answer is None else answer.ends
        stopped = self._stopped(partitions, ends, now_s)
        waits = is_producing or not partitions.keys() <= ends.keys() or any(map(_waits, partitions.values()))
        self._check_movement(partitions, ends, now_s, is_excused=waits)
        return stopped

    def picture(self, partition: Partition, now_s: float) -> dict[str, Any]:
        """What it knows of one partition, for ``/status``."""
        found = self._lag(partition, now_s)
        oldest_s = partition.ages.since_placed_s(now_s, partition.ledger.released.frame)
        return {
            "lag": found.records,
            "lag_s": None if found.seconds is None else round(found.seconds, 3),
            "eta_s": None if found.eta_s is None else round(found.eta_s, 1),
            "oldest_age_s": 0.0 if oldest_s is None else round(oldest_s, 3),
            "paused_s": round(partition.flow.paused_s(now_s), 3),
        }

    def _keep(self, partitions: Mapping[int, Partition]) -> None:
        """A partition's watch outlives its resets, its meter does not; both end when it goes."""
        for gone in self._watches.keys() - partitions.keys():
            del self._watches[gone]
        for number, partition in partitions.items():
            if number not in self._watches:
                self._watches[number] = FetchWatch(self._settings.fetch_silence_timeout_s)
            if number not in self._meters or self._meters[number][0] != partition.epoch:
                self._meters[number] = (partition.epoch, LagMeter())
        for gone in self._meters.keys() - partitions.keys():
            del self._meters[gone]

    def _note_lags(self, partitions: Mapping[int, Partition]) -> None:
        answer = self._watermarks.answer
        if answer is None or answer.at_s == self._noted_at_s:
            return
        self._noted_at_s = answer.at_s
        for number, partition in partitions.items():
            records = self._records(partition)
            if records is not None:
                self._meters[number][1].note(answer.at_s, records)

    def _records(self, partition: Partition) -> int | None:
        answer = self._watermarks.answer
        if answer is None or partition.number not in answer.ends:
            return None
        next_offset = partition.ledger.next_offset
        if next_offset is None:
            next_offset = answer.starts.get(partition.number)
        return None if next_offset is None else max(0, answer.ends[partition.number] - next_offset)

    def _lag(self, partition: Partition, now_s: float) -> Lag:
        answer = self._watermarks.answer
        end = None if answer is None else answer.ends.get(partition.number)
        position = self._positions.get(partition.number)
        _, meter = self._meters.get(partition.number, (0, None))
        return (meter or LagMeter()).measure(
            now_s,
            records=self._records(partition),
            since_written_s=partition.ages.since_written_s(now_s, time.time()),
            # What did not fit was dropped: the client's position is behind it all the same, until it is sought back.
            has_fetched_all=(
                partition.flow.seek_offset is None and end is not None and position is not None and position >= end
            ),
        )

    def _stopped(self, partitions: Mapping[int, Partition], ends: Mapping[int, int], now_s: float) -> list[Stopped]:
        answer = self._watermarks.answer
        found = []
        for number, partition in partitions.items():
            end = ends.get(number)
            placed = partition.next_to_place
            if placed is None and answer is not None:
                placed = answer.starts.get(number)
            position = self._positions.get(number)
            cure = self._watches[number].look(
                now_s, end=end, position=position, placed=placed, paused=partition.flow.paused
            )
            if cure is not None:
                waited_s = self._settings.fetch_silence_timeout_s
                detail = f"the client fetches nothing at {position} for {waited_s:g} s, the log ends at {end}"
                found.append(Stopped(number, cure, detail))
        return found

    def _check_movement(
        self, partitions: Mapping[int, Partition], ends: Mapping[int, int], now_s: float, *, is_excused: bool
    ) -> None:
        standings = {number: self._standing(one, ends.get(number)) for number, one in partitions.items()}
        if self._nothing_moves.look(now_s, standings, is_excused=is_excused):
            stuck = [number for number, one in standings.items() if one.has_work]
            raise NothingMovesError(
                f"nothing has moved for {self._settings.nothing_moves_timeout_s:g} s although Kafka answers and no"
                f" worker waits for its sink; partitions with work: {', '.join(map(str, stuck))}"
            )

    def _standing(self, partition: Partition, end: int | None) -> Standing:
        fetched = self._positions.get(partition.number)
        if fetched is None:
            fetched = partition.next_to_place or 0
        was_dropped = partition.flow.seek_offset is not None
        has_work = was_dropped or not partition.ledger.is_complete or (end is not None and fetched < end)
        return Standing(
            next_offset=-1 if partition.ledger.next_offset is None else partition.ledger.next_offset,
            next_to_place=-1 if partition.next_to_place is None else partition.next_to_place,
            narrowness=partition.suspicion.narrowness,
            has_work=has_work and not partition.standstill.holds_fetching,
        )


def _waits(partition: Partition) -> bool:
    return partition.life is not None and partition.life.watchdog.is_waiting
