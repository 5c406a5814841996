"""Starting, hearing and ending workers, and the fork server behind them. Parent's thread only."""

import logging
import random
import select
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from dmpd.runtime.backoff import Backoff
from dmpd.stream import metrics
from dmpd.stream.channel import WAITING, ChannelClosedError, Emit, Invalid, ReleasedTo, StateChanged, Upward
from dmpd.stream.ears import Ears
from dmpd.stream.fork_server import Fork, ForkServer, ForkServerError
from dmpd.stream.frames import Position
from dmpd.stream.ledger import PositionError
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.settings import StreamSettings
from dmpd.stream.watchdog import Watchdog
from dmpd.stream.worker_life import WorkerLife

_log = logging.getLogger(__name__)
_MESSAGES_PER_TURN_MAX: Final = 1000


class Workers:
    """One worker per partition. A partition's next one starts only after the death of the last was confirmed."""

    def __init__(self, server: ForkServer, settings: StreamSettings, outgoing: OutgoingRecords) -> None:
        self._server = server
        self._settings = settings
        self._outgoing = outgoing
        self._ears = Ears()
        self._server_restart_at_s = 0.0
        self._server_backoff = Backoff(
            settings.worker_backoff_first_s, settings.worker_backoff_max_s, random=random.random
        )

    def listen(self, partitions: Mapping[int, Partition]) -> list[Partition]:
        """Hear those who say something; returns their partitions. Does not block."""
        spoken = [partitions[number] for number in self._ears.spoken()]
        for partition in spoken:
            self.hear(partition)
        return spoken

    def tend(self, partitions: Iterable[Partition], now_s: float) -> None:
        """After ``listen``: notice deaths, start who is missing, tell who is behind."""
        partitions = list(partitions)
        for partition in partitions:
            self._watch(partition, now_s)
            if partition.life is not None and partition.life.shows_death(now_s):
                partition.life.kill()
                self._bury(partition, now_s)
        if not self._server.is_alive():
            self._replace_server(partitions, now_s)
        for partition in partitions:
            if partition.life is None and now_s >= partition.restart_at_s and self._server.is_alive():
                self._start(partition, now_s)
            partition.tell_worker()

    def hear(self, partition: Partition) -> None:
        """Take what the worker has said so far. Nothing is read while too much is waiting to be produced.

        Nor after the verdict that halts the partition: ``silence`` follows.
        """
        for _ in range(_MESSAGES_PER_TURN_MAX):
            if partition.life is None or self._is_deaf or partition.standstill.is_due or not self._hear_one(partition):
                return
            if partition.has_idle_worker:
                return  # to ask for more would cost more than all the rest

    def finish_batches(self, partitions: list[Partition], timeout_s: float, *, meanwhile: Callable[[], None]) -> None:
        """Wait until each worker has released the batch it is in, or is done, or dead; at most ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        before = {p.number: p.ledger.released for p in partitions}
        busy = partitions
        while True:
            for partition in busy:
                self.hear(partition)
            busy = [
                p
                for p in busy
                if p.life is not None
                and not p.life.is_dead()
                and not p.ledger.is_released
                and p.ledger.released == before[p.number]
            ]
            meanwhile()
            left_s = deadline_s - time.monotonic()
            if not busy or left_s <= 0:
                return
            wait(busy, min(left_s, 0.02))

    def kill(self, partitions: Iterable[Partition]) -> None:
        """Kill the workers, confirm their deaths and read their channels to the end. Blocks; after that R is final.

        Raises:
            WorkerUndeadError: One does not die.
        """
        with_life = [p for p in partitions if p.life is not None]
        for partition in with_life:
            assert partition.life is not None
            partition.life.kill()
        for partition in with_life:
            self._end_life(partition)

    def silence(self, partition: Partition) -> None:
        """Kill the worker; what it said and was not heard is void, and what it did of that is done again. Blocks.

        Raises:
            WorkerUndeadError: It does not die.
        """
        if partition.life is not None:
            partition.life.kill()
            partition.life.confirm_death()
            self._close_life(partition)

    def end(self, partitions: Iterable[Partition], timeout_s: float) -> None:
        """Let the workers close their handlers and leave, at most ``timeout_s`` all together. Their rings are done."""
        deadline_s = time.monotonic() + timeout_s
        lives = [p.life for p in partitions if p.life is not None]
        for life in lives:
            self._ears.remove(life.channel)
            life.channel.close()
        for life in lives:
            life.await_end(deadline_s)
        for partition in partitions:
            partition.life = None

    def _start(self, partition: Partition, now_s: float) -> None:
        if partition.standstill.is_halted:
            return
        released = partition.ledger.released
        request = Fork(
            partition.number,
            released.frame,
            released.nth,
            self._settings.batch_records_max,
            min(self._settings.batch_bytes_max, partition.filled_bytes_max),
        )
        try:
            watchdog = Watchdog(
                stuck_s=self._settings.stuck_timeout_s, sink_silence_s=self._settings.sink_silence_timeout_s
            )
            partition.life = WorkerLife.start(self._server, request, ring_fd=partition.ring_fd, watchdog=watchdog)
            self._ears.add(partition.life.channel, partition.number)
        except ForkServerError as error:
            _log.error("partition %d: no worker: %s", partition.number, error)
            partition.restart_at_s = now_s + partition.backoff.next_s()

    def _bury(self, partition: Partition, now_s: float) -> None:
        life = partition.life
        assert life is not None
        self._end_life(partition)
        metrics.WORKER_DEATHS.inc()
        partition.restarts += 1
        life.status = self._server.status_of(life.pid)
        if self._suspect(partition, life) or life.has_released:
            partition.backoff.reset()
        is_first = partition.backoff.attempts == 0
        delay_s = partition.backoff.next_s()
        partition.restart_at_s = now_s if is_first else now_s + delay_s
        _log.error(
            "partition %d: worker %d died: %s; the next one starts in %.1f s at offset %s",
            partition.number,
            life.pid,
            life.how_ended,
            partition.restart_at_s - now_s,
            partition.ledger.next_offset,
        )

    def _watch(self, partition: Partition, now_s: float) -> None:
        """Kill a worker that is stuck; its death shows like any other."""
        life = partition.life
        if life is None or life.has_closed:
            return
        released = partition.ledger.released
        fed = life.told > released.frame and not self._is_deaf
        if life.watchdog.is_stuck(now_s, fed=fed, released=released):
            metrics.STUCK_WORKERS.inc()
            life.condemn("killed as stuck")

    @property
    def _is_deaf(self) -> bool:
        """Whether workers are not heard because what they emitted waits for the broker."""
        return self._outgoing.is_full

    def _suspect(self, partition: Partition, life: WorkerLife) -> bool:
        """After a death while handling: offer less, or give the one left up. Returns whether that moves anything."""
        oldest = partition.ledger.oldest_offered()
        offered = min(partition.ledger.offered(life.told), life.widest_told)
        if not life.accuses or oldest is None or not offered:
            return False
        width_before = partition.suspicion.width
        if not partition.suspicion.died(offered):
            return partition.suspicion.width != width_before
        position, after = oldest
        metrics.CONDEMNED.inc()
        _log.error("partition %d: offset %d killed its worker", partition.number, partition.ledger.offset_at(position))
        self._outgoing.give_up(partition, position, reason="poison", detail=life.how_ended, by="stream")
        partition.release(after)
        return True

    def _end_life(self, partition: Partition) -> None:
        life = partition.life
        assert life is not None
        life.confirm_death()
        while self._hear_one(partition):
            continue
        self._close_life(partition)

    def _close_life(self, partition: Partition) -> None:
        life = partition.life
        assert life is not None
        self._ears.remove(life.channel)
        life.close()
        partition.life = None

    def _hear_one(self, partition: Partition) -> bool:
        """Take one message; False = there is none, or it was the last."""
        life = partition.life
        assert life is not None
        try:
            message = life.channel.receive()
            if message is None:
                return False
            self._take(partition, life, message)
        except ChannelClosedError:
            life.has_closed = True
            return False
        except (PositionError, msgspec.DecodeError) as error:
            life.condemn(f"killed, it spoke nonsense: {error}")
            return False
        return True

    def _take(self, partition: Partition, life: WorkerLife, message: Upward) -> None:
        match message:
            case ReleasedTo(frame, nth):
                life.has_released = partition.release(Position(frame, nth)) or life.has_released
                life.state = "ready"  # it waits for nothing any more
            case Invalid(frame, nth, reason, detail):
                self._outgoing.give_up(partition, Position(frame, nth), reason=reason, detail=detail)
            case Emit():
                self._outgoing.emit(partition, message)
            case StateChanged(state, detail):
                life.state = state
                life.detail = detail
                life.was_ready = life.was_ready or state == "ready"
                if state in WAITING:
                    life.watchdog.said_waiting()
                    partition.note_waiting(time.monotonic())
                elif state == "corrupted":
                    partition.corruption = detail

    def _replace_server(self, partitions: list[Partition], now_s: float) -> None:
        if now_s < self._server_restart_at_s:
            return
        metrics.FORK_SERVER_DEATHS.inc()
        _log.error("the fork server died; its workers are killed and both are started anew")
        self.kill(partitions)
        self._server.stop()
        self._server_restart_at_s = now_s + self._server_backoff.next_s()
        try:
            self._server.start()
        except ForkServerError as error:
            _log.error("no fork server: %s", error)


def wait(partitions: Iterable[Partition], timeout_s: float) -> None:
    """Wait until a worker says something or dies, at most ``timeout_s``."""
    poller = select.poll()
    for partition in partitions:
        if partition.life is not None:
            poller.register(partition.life.channel, select.POLLIN)
            poller.register(partition.life.pidfd, select.POLLIN)
    poller.poll(timeout_s * 1000)
