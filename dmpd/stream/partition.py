"""One assignment of one partition in the parent: its ring, what is in it, whether it is fetched, who works on it.

Made when the partition is assigned, closed when it goes; workers come and go meanwhile. Knows no Kafka client. All
calls come from the parent's thread.
"""

import os
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from dmpd.runtime.backoff import Backoff
from dmpd.stream import frames, ring
from dmpd.stream.ages import Ages
from dmpd.stream.channel import WAITING
from dmpd.stream.committer import Candidate
from dmpd.stream.flow import Flow, frame_bytes_min, marks_for
from dmpd.stream.frames import Frame, Position
from dmpd.stream.handler import Record
from dmpd.stream.ledger import Ledger
from dmpd.stream.release_rate import ReleaseRate
from dmpd.stream.settings import StreamSettings
from dmpd.stream.standstill import Standstill
from dmpd.stream.suspicion import Suspicion
from dmpd.stream.worker_life import WorkerLife

_FAST_BYTES_PER_S: Final = 1e12
"""More than any worker releases."""


class OversizedRecord(NamedTuple):
    """A record that the handler never sees; its place in the order is kept, and held until it is dead-lettered."""

    record: Record
    ticket: int
    size_bytes: int
    ordinal: int
    """How many records were placed before it."""


class Partition:
    """Owns the ring's memory and the worker's life."""

    def __init__(self, number: int, *, epoch: int, next_offset: int | None, settings: StreamSettings) -> None:
        """``next_offset``: what is committed; None = nothing, so it begins at the beginning."""
        self.number: Final = number
        self.epoch: Final = epoch
        self.ring_fd: Final = ring.create_memory(settings.ring_capacity_bytes)
        self.ring: Final = ring.RingProducer(self.ring_fd)
        self.ledger: Final = Ledger(next_offset)
        self._marks_for: Final = partial(
            marks_for,
            ring_bytes=self.ring.capacity_bytes,
            max_record_bytes=settings.max_record_bytes,
            drain_timeout_s=settings.drain_timeout_s,
        )
        self.filled_bytes_max: Final = self._marks_for(rate_bytes_per_s=_FAST_BYTES_PER_S).high_bytes
        """Most that lies in the ring, however fast the worker is."""
        self._frame_bytes_min: Final = frame_bytes_min(self.ring.capacity_bytes)
        self.flow: Final = Flow(self._marks_for(rate_bytes_per_s=None))
        self.rate: Final = ReleaseRate(plenty_bytes=settings.max_record_bytes // 2)
        self.ages: Final = Ages()
        self.next_to_place = next_offset
        """Offset that is expected next; what comes below it was placed already. None = any."""
        self.log_end = 0
        """Where the log ended when records last came in bulk; 0 = they never did, or nothing is fetched any more."""
        self.is_full = False
        """Whether what was placed last reached the mark, or did not fit: nothing more is to be fetched."""
        self.lost_from: int | None = None
        """Set when Kafka no longer has ``next_to_place``: what comes next tells how much was lost."""
        self.lost_offsets = 0
        """How many offsets Kafka no longer had when they were to be fetched."""
        self.held_bytes = 0
        """Memory outside the ring for oversized records on their way to the dead letters."""
        self.life: WorkerLife | None = None
        self.restart_at_s = 0.0
        self.backoff = Backoff(settings.worker_backoff_first_s, settings.worker_backoff_max_s, random=random.random)
        self.suspicion: Final = Suspicion()
        self.standstill: Final = Standstill()
        self._waiting_since_s: float | None = None
        self.corruption = ""
        """Set when what lies in the ring cannot be trusted: the partition is to be reset."""
        self.restarts = 0
        self.dead_letters = 0
        self.closed = False
        self._passed_counted = 0
        self._all_done_at: int | None = 0
        """Where the ring ended when all in it was passed: until more is placed there is nothing to note."""
        self._judged: set[Position] = set()
        self._batch_records_max: Final = settings.batch_records_max
        self._record_bytes_max: Final = settings.max_record_bytes
        self._frame_cache: tuple[int, Frame] | None = None

    def inherit(self, old: "Partition") -> None:
        """This one was begun in the place of ``old``: it stands as still, and what was counted goes on."""
        self.restarts, self.dead_letters, self.lost_offsets = old.restarts, old.dead_letters, old.lost_offsets
        self.standstill.inherit(old.standstill)
        self.backoff = old.backoff

    def close(self) -> None:
        """Give the memory back. The worker is dead."""
        assert self.life is None
        self.closed = True
        self._frame_cache = None
        self.ring.close()
        os.close(self.ring_fd)

    @property
    def used_bytes(self) -> int:
        """What the marks bound: what its records take, or, where records trickle in, the books about their frames."""
        in_ring = self.ring.published - self.ring.freed + self.held_bytes
        return max(in_ring, len(self.ledger.frames) * self._frame_bytes_min)

    @property
    def wants_care(self) -> bool:
        """Whether its worker ended, its ring is broken, or it is to be halted."""
        return bool(self.corruption) or self.standstill.is_due or (self.life is not None and self.life.has_closed)

    @property
    def is_at_rest(self) -> bool:
        """Whether its worker has nothing to do, and is there to do what comes."""
        return self.life is not None and self.ledger.is_complete

    @property
    def has_idle_worker(self) -> bool:
        """Whether its worker is done with all that it was told of: it says nothing before it is told more."""
        return self.life is not None and self.ledger.released.frame >= self.life.told

    @property
    def waits_for_space(self) -> bool:
        """Whether it is not fetched because of what lies in its ring, and for no other reason."""
        return self.flow.paused and not self.standstill.holds_fetching

    def tell_worker(self) -> None:
        """Tell the worker, if there is one, what it may read."""
        if self.life is not None:
            coming = self._coming if self.log_end else 0
            self.life.tell_published(self.ring.published, self.suspicion.width or self._batch_records_max, coming)

    def expect_no_more(self) -> None:
        """Nothing is fetched from now on: a worker that waits for more may begin with what there is."""
        self.log_end = 0
        self.tell_worker()

    @property
    def _coming(self) -> int:
        """How many records are known to come without the worker's doing."""
        if self.flow.paused or self.next_to_place is None:
            return 0
        return max(0, self.log_end - self.next_to_place)

    @property
    def state(self) -> str:
        """For people: that of ``standstill``; ``waiting`` or ``halted`` while the worker says so of its sink."""
        said = None if self.life is None else self.life.state
        if self.standstill.state != "running" or said not in WAITING:
            return self.standstill.state
        return "halted" if said == "halted_sink" else "waiting"

    @property
    def waits_for(self) -> str | None:
        """What the worker said of its sink, None = it does not wait for it."""
        return self.life.detail if self.life is not None and self.life.state in WAITING else None

    def note_waiting(self, now_s: float) -> None:
        """The worker has said that it waits for its sink."""
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s

    def waiting_s(self, now_s: float) -> float:
        """For how long the sink has taken nothing, over workers' lives; 0 = it does."""
        return 0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s

    def note_progress(self, now_s: float) -> None:
        """Once a round: how old is what lies here, how fast is the worker; let in only what it drains in time."""
        published, frontier = self.ring.published, self.ledger.frontier.frame
        if published == self._all_done_at:
            return
        self.ages.note(now_s, published=published, passed=frontier)
        released = self.ledger.released.frame
        works = self.life is not None and self.life.was_ready and not self.life.watchdog.is_waiting
        if self.rate.note(now_s, released=released, open_bytes=published - released, works=works):
            self.flow.marks = self._marks_for(rate_bytes_per_s=self.rate.bytes_per_s, is_floor=self.rate.is_floor)
        self._all_done_at = published if frontier == published else None

    def release(self, position: Position) -> bool:
        """Everything before ``position`` is handled; returns whether that is news. Raises ``PositionError``."""
        before = self.ledger.released
        width_before = self.suspicion.width
        open_before = self.ledger.offered(position.frame + 1) if width_before is not None else 0
        self.ledger.release(position)
        self.standstill.reached(self.ledger.released_records)
        self._waiting_since_s = None
        if width_before is not None:
            self.suspicion.released(open_before - self.ledger.offered(position.frame + 1))
        return self.ledger.released > before

    def place(self, frame: Frame) -> Sequence[OversizedRecord]:
        """Put the records of one turn into the ring; from the first that does not fit on, they are dropped."""
        if self.flow.seek_offset is not None:
            return ()
        expected = self.next_to_place
        if expected is not None and frame.offsets[0] < expected:
            frame = frames.from_offset(frame, expected)
            if not frame.offsets:
                return ()
        payload = frames.encode(frame)
        if len(payload) <= self._record_bytes_max:
            self._put(frame, payload)
            return ()
        return self._place_pieces(frame)

    def take_loss(self, first_offset: int) -> int:
        """After Kafka no longer had what was to come: how many offsets are gone, now that ``first_offset`` is here."""
        if self.lost_from is None:
            return 0
        lost, self.lost_from = max(0, first_offset - self.lost_from), None
        self.next_to_place = first_offset
        self.lost_offsets += lost
        return lost

    def judge(self, position: Position) -> int | None:
        """Hold the frontier for a record called invalid; None if an earlier worker called it so: it is on its way.

        Raises:
            PositionError: There is no such record, or it is released.
        """
        if position in self._judged:
            return None
        ticket = self.ledger.hold(position)
        self._judged.add(position)
        self.dead_letters += 1
        return ticket

    def record_at(self, position: Position) -> Record:
        """Read a record that is not freed yet out of the ring. Raises ``RingCorruptedError``."""
        if self._frame_cache is None or self._frame_cache[0] != position.frame:
            payload, _, _ = self.ring.read(position.frame)
            try:
                self._frame_cache = (position.frame, frames.decode(payload))
            except (msgspec.DecodeError, ValueError) as error:
                raise ring.RingCorruptedError(position.frame, len(payload), -1) from error
        return frames.record_at(self._frame_cache[1], position.nth)

    def check_ring(self) -> None:
        """Read all that is not freed; sets ``corruption`` if it is not what was written. For when it is in doubt."""
        position = self.ring.freed
        try:
            while position < self.ring.published:
                payload, _, position = self.ring.read(position)
                frames.decode(payload)
        except (ring.RingCorruptedError, msgspec.DecodeError, ValueError) as error:
            self.corruption = f"the parent cannot read it: {error}"

    def free(self) -> int:
        """Give back the space before the frontier; returns how many records it has passed since the last call."""
        frontier = self.ledger.frontier
        if frontier.frame > self.ring.freed:
            self.ring.free_to(frontier.frame)
            self._frame_cache = None
        if self._judged:
            self._judged = {position for position in self._judged if position >= frontier}
        passed = self.ledger.passed_records - self._passed_counted
        self._passed_counted += passed
        return passed

    def candidate(self) -> Candidate | None:
        """What could be committed; None = nothing is known to be."""
        offset = self.ledger.next_offset
        return None if offset is None else Candidate(self.epoch, offset, self.ledger.passed_records)

    def picture(self, *, committed: int | None) -> dict[str, Any]:
        """This partition for ``/status``; how far it is behind is the lookout's to say."""
        return {
            "next_offset": self.ledger.next_offset,
            "committed": committed,
            "open_records": self.ledger.open_records,
            "ring_used_bytes": self.ring.used_bytes,
            "state": self.state,
            "waits_for": self.waits_for,
            "halted_by": self.standstill.verdicts and self.standstill.verdicts._asdict(),
            "paused": self.flow.paused,
            "worker_pid": None if self.life is None else self.life.pid,
            "restarts": self.restarts,
            "dead_letters": self.dead_letters,
            "lost_offsets": self.lost_offsets,
        }

    def _place_pieces(self, frame: Frame) -> list[OversizedRecord]:
        oversized: list[OversizedRecord] = []
        limit = self._record_bytes_max
        for piece in frames.split(frame, piece_bytes_max=limit // 2, record_bytes_max=limit):
            if not frames.is_oversized(piece, limit):
                if self._put(piece, frames.encode(piece)) is None:
                    break
                continue
            kept = frames.without_content(piece)
            position = self._put(kept, frames.encode(kept))
            if position is None:
                break
            record = frames.record_at(piece, 0)
            size = frames.content_bytes(record.key, record.value, record.headers)
            at = Position(position, 0)
            oversized.append(OversizedRecord(record, self.ledger.hold(at), size, self.ledger.ordinal_at(at)))
            self.held_bytes += size
            self.dead_letters += 1
        return oversized

    def _put(self, frame: Frame, payload: bytes | bytearray) -> int | None:
        used_bytes, size_bytes = self.used_bytes, ring.frame_bytes(len(payload))
        offsets, flow = frame.offsets, self.flow
        position = self.ring.write(payload) if flow.fits(used_bytes, size_bytes) else None
        if position is None:
            flow.refuse(offsets[0])
            self.is_full = True
            return None
        self.is_full = used_bytes + size_bytes >= flow.marks.high_bytes
        self.ledger.place(position, self.ring.published, offsets, skipped=frame.skipped)
        self.next_to_place = offsets[-1] + 1
        self.ages.put(frame.timestamps_ms[0])
        return position
