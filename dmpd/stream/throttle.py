"""Space given back, partitions paused and resumed, as flow and standstill decide. Parent's thread only."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dmpd.stream import metrics
from dmpd.stream.consumer import StreamConsumer
from dmpd.stream.partition import Partition


class Throttle:
    """Reads ``partitions`` as they are at each moment; they are the parent's."""

    def __init__(self, partitions: Mapping[int, Partition]) -> None:
        self._partitions: Final = partitions

    @property
    def is_all_paused(self) -> bool:
        """Whether nothing can come from Kafka; not if there is no partition."""
        return bool(self._partitions) and all(p.flow.paused for p in self._partitions.values())

    def settle(
        self, partitions: Iterable[Partition], consumer: StreamConsumer | None, now_s: float, *, is_draining: bool
    ) -> None:
        """Give back what the frontier has passed; pause who is full; resume who has room (not while draining)."""
        pause, resume, passed = [], [], 0
        for partition in partitions:
            partition.note_progress(now_s)
            passed += partition.free()
            if is_draining:
                continue
            used_bytes = partition.used_bytes
            held = partition.standstill.holds_fetching and not partition.flow.paused
            if held or partition.flow.wants_pause(used_bytes):
                pause.append(partition)
            elif not partition.standstill.holds_fetching and partition.flow.wants_resume(used_bytes):
                resume.append(partition)
        if passed:
            metrics.PASSED.inc(passed)
        if consumer is None:
            return
        for partition in pause:
            partition.flow.pause(now_s)
            partition.tell_worker()  # which may wait for more
            metrics.PAUSES.inc(not partition.standstill.holds_fetching)
        if pause:
            consumer.pause([p.number for p in pause])
        if resume:
            self._resume(resume, consumer, now_s)

    def _resume(self, partitions: Sequence[Partition], consumer: StreamConsumer, now_s: float) -> None:
        was_all_paused = self.is_all_paused
        consumer.resume([p.number for p in partitions])
        not_sought = []
        for partition in partitions:
            offset = partition.flow.resumed(now_s)
            partition.tell_worker()  # that more comes
            if offset is None:
                not_sought.append(partition.number)
            else:
                consumer.seek(partition.number, offset)
        if was_all_paused:
            consumer.wake(not_sought)
