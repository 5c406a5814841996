"""The parent's loop: Kafka on one side, rings and workers on the other, one thread, nothing in it waits for a sink.

One turn: take what Kafka has, place it, tell the workers. Every few milliseconds a round: hear the workers, hand on
dead letters, free what the frontier has passed, pause and resume. Less often a look at all of it: commit, heal. What is
decided stands in pure files (flow, ledger, committer); this one moves it.
"""

import logging
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaException

from dmpd.runtime import exit_codes
from dmpd.runtime.backoff import Backoff
from dmpd.runtime.kafka import RecordProducer
from dmpd.runtime.lifecycle import Lifecycle
from dmpd.runtime.settings import KafkaSettings
from dmpd.stream import metrics, operations, workers
from dmpd.stream.committer import Candidate, Committer
from dmpd.stream.consumer import StreamConsumer
from dmpd.stream.control import Control
from dmpd.stream.drain import Drain, StopWatch, exit_now, remainder
from dmpd.stream.fork_server import ForkServer
from dmpd.stream.intake import ClientFailedError, Intake
from dmpd.stream.lookout import Lookout, NothingMovesError
from dmpd.stream.operations import Operations
from dmpd.stream.outgoing import OutgoingRecords
from dmpd.stream.partition import Partition
from dmpd.stream.ring import RingCorruptedError
from dmpd.stream.settings import StreamSettings
from dmpd.stream.source_limits import SourceOf, whole_key
from dmpd.stream.status import StreamStatus
from dmpd.stream.throttle import Throttle
from dmpd.stream.workers import Workers

_log = logging.getLogger(__name__)

_IDLE_POLL_S: Final = 0.05
"""Also bounds how late a signal or a worker's death is seen; above 0.2 s the client would not wake for signals."""
_BUSY_POLL_S: Final = 0.005
"""While a ring waits for space or a drain for its end."""
_ROUND_EVERY_S: Final = 0.04
"""Between two rounds: what they do is dear where records trickle in (cold caches), and no record waits for it."""
_BUSY_ROUND_EVERY_S: Final = 0.005
"""The same while a partition waits for space, or something for the producer."""
_LOOK_EVERY_S: Final = 0.1
"""Between two looks at every partition. Those that get records or whose worker speaks are seen to in each round."""
_LOOK_AT_REST_EVERY_S: Final = 0.25
"""The same while no record comes, nobody speaks and nothing is on its way: with 48 partitions a look costs 0.5 ms."""
_WATCH_EVERY_S: Final = 0.5
_STATUS_EVERY_S: Final = 0.5
_STATUS_AT_REST_EVERY_S: Final = 1.0
"""As the look at rest: nothing but the broker's answers, one in two seconds, changes what is shown."""
_DEGRADED_AFTER_S: Final = 15.0
_LEAVE_TIMEOUT_S: Final = 5.0
_REVOKE_COMMIT_S: Final = 0.2
"""For the commit at a revoke, also when the batch has taken all its time."""
_REBUILD_FIRST_S: Final = 0.5
_REBUILD_MAX_S: Final = 30.0


class StreamFailedError(Exception):
    """The stream cannot go on in this process."""


class Parent:
    """Owns the consumer and the partitions. ``run`` is called once."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: StreamSettings,
        *,
        server: ForkServer,
        producer: RecordProducer,
        lifecycle: Lifecycle,
        status: StreamStatus,
        stop_watch: StopWatch,
        source_of: SourceOf = whole_key,
        control: Control | None = None,
    ) -> None:
        """``stop_watch``: started and ended by the caller."""
        self._settings = settings
        self._lifecycle = lifecycle
        self._status = status
        self._partitions: dict[int, Partition] = {}
        self._epochs = 0
        self._outgoing = OutgoingRecords(
            producer,
            topic=settings.topic,
            dead_letter_topic=settings.dead_letter_topic,
            letters_per_minute=settings.dead_letters_per_source_per_minute,
            source_of=source_of,
        )
        self._workers = Workers(server, settings, self._outgoing)
        self._intake = Intake(self._partitions, self._outgoing, settings)
        self._throttle = Throttle(self._partitions)
        self._operations = Operations(self._workers, self._outgoing, control or Control())
        self._committer = Committer(
            records=settings.commit_records,
            interval_s=settings.commit_interval_s,
            repeat_s=settings.commit_repeat_s,
            deadline_s=settings.commit_deadline_s,
        )
        self._lookout = Lookout(kafka, settings)
        self._kafka = kafka
        self._consumer: StreamConsumer | None = None
        self._rebuild_at_s = 0.0
        self._abandoned: dict[int, Partition] = {}
        """Closed; what they were when the client failed, until another one gets partitions."""
        self._rebuild_backoff = Backoff(_REBUILD_FIRST_S, _REBUILD_MAX_S, random=random.random)
        self._drain: Drain | None = None
        self._stop_watch = stop_watch
        self._stop_watch.remainder = self._remainder
        self._has_joined = False
        self._is_leaving = False
        self._round_at_s = self._look_at_s = 0.0
        self._placed: set[Partition] = set()
        """Those that got records since the last round."""
        self._is_all_paused = self._waits_for_space = False
        self._watch_at_s = self._status_at_s = 0.0

    def run(self) -> int:
        """Process until a stop is asked for and everything fetched is done; returns the exit code.

        Ends the process itself (``os._exit``) when the drain's deadline passes or a second stop comes.

        Raises:
            StreamFailedError, WorkerUndeadError, KafkaException: It cannot go on; workers die with this process.
        """
        self._lookout.start()
        self._join()
        while True:
            now_s = time.monotonic()
            self._turn(now_s)
            if self._lifecycle.stop_requested and self._drain is None:
                self._begin_drain(now_s)
            if self._drain is not None:
                self._drain.enforce(self._lifecycle, self._remainder)
                if self._is_drained():
                    return self._leave()

    # One turn

    def _turn(self, now_s: float) -> None:
        placed = self._fetch_or_rebuild(now_s)
        now_s = time.monotonic()  # the client may have waited
        self._placed.update(placed)
        if now_s >= self._round_at_s or self._drain is not None:
            self._round(now_s)
        elif any(p.is_full for p in placed):
            self._settle(placed, now_s)

    def _round(self, now_s: float) -> None:
        """Not in every turn: what workers say frees space and is committed, and no record waits for that."""
        spoken = self._workers.listen(self._partitions)
        self._pump(now_s)
        if now_s >= self._look_at_s or self._drain is not None or any(p.wants_care for p in spoken):
            self._look_after_all(now_s)
            self._look_at_s = now_s + (_LOOK_AT_REST_EVERY_S if self._is_at_rest else _LOOK_EVERY_S)
        else:
            changed = self._placed.union(spoken)
            if changed:
                self._settle(changed, now_s)
        self._placed.clear()
        is_busy = self._waits_for_space or self._outgoing.backlog > 0
        self._round_at_s = now_s + (_BUSY_ROUND_EVERY_S if is_busy else _ROUND_EVERY_S)
        if now_s >= self._watch_at_s:
            self._watch_at_s = now_s + _WATCH_EVERY_S
            self._keep_watch(now_s)
        if now_s >= self._status_at_s:
            self._status_at_s = now_s + (_STATUS_AT_REST_EVERY_S if self._is_at_rest else _STATUS_EVERY_S)
            self._report(now_s)

    @property
    def _is_at_rest(self) -> bool:
        return not self._outgoing.backlog and all(p.is_at_rest for p in self._partitions.values())

    def _look_after_all(self, now_s: float) -> None:
        """What need not be asked of every partition in every turn: a turn may bring one record to one of many."""
        self._workers.tend(self._partitions.values(), now_s)
        self._operations.tend(self._partitions, is_draining=self._drain is not None)
        self._heal(now_s)
        if self._outgoing.fatal is not None:
            raise StreamFailedError(f"the producer of dead letters failed: {self._outgoing.fatal}")
        self._settle(self._partitions.values(), now_s)
        metrics.RECORDS.inc(self._intake.take_count())
        self._commit(now_s)

    def _fetch_or_rebuild(self, now_s: float) -> Collection[Partition]:
        """Take what Kafka has, returns whose it was; a client that failed for good is replaced, with backoff."""
        if self._consumer is None:
            workers.wait((), _IDLE_POLL_S)
            if now_s >= self._rebuild_at_s and self._drain is None:
                self._join()
            return ()
        try:
            return self._intake.fetch(self._consumer, self._poll_timeout_s(), is_draining=self._drain is not None)
        except (ClientFailedError, KafkaException) as error:
            self._abandon(error, now_s)
            return ()

    def _join(self) -> None:
        self._consumer = StreamConsumer(self._kafka, self._settings, self)
        self._consumer.subscribe()

    def _abandon(self, error: Exception, now_s: float) -> None:
        """Let go of a client that failed: its partitions are no longer ours, nothing of them is committed."""
        wait_s = self._rebuild_backoff.next_s()
        metrics.CLIENT_REBUILDS.inc()
        _log.error("the Kafka client failed: %s; another one joins in %.1f s", error, wait_s)
        assert self._consumer is not None
        self._consumer.abandon()
        self._consumer = None
        self._committer.give_up()
        self._rebuild_at_s = now_s + wait_s
        self._abandoned.update(self._partitions)
        self._let_go(list(self._partitions))

    def _pump(self, now_s: float) -> None:
        try:
            self._outgoing.pump(now_s)
        except RingCorruptedError as error:
            self._note_corruption(error)

    def _note_corruption(self, error: RingCorruptedError) -> None:
        """The parent itself found a frame broken: whose it is, is seen by reading what lies unfreed."""
        for partition in self._partitions.values():
            partition.check_ring()
        if not any(p.corruption for p in self._partitions.values()):
            raise StreamFailedError(str(error)) from error

    def _heal(self, now_s: float) -> None:
        for partition in list(self._partitions.values()):
            if partition.corruption:
                self.reset(partition.number, cause="ring_corrupted", detail=partition.corruption, now_s=now_s)

    def _keep_watch(self, now_s: float) -> None:
        """Cure who is no longer fetched; end the process when nothing helps."""
        try:
            stopped = self._lookout.look(
                self._partitions,
                {} if self._consumer is None else self._consumer.fetch_positions.offsets,
                now_s,
                is_fetching=self._consumer is not None and self._drain is None,
                is_producing=self._outgoing.backlog > 0,
            )
        except NothingMovesError as error:
            _log.critical("%s", error)
            exit_now(exit_codes.INTERNAL)
        for number, cure, detail in stopped:
            self.reset(number, cause="fetch_stopped", detail=detail, now_s=now_s, by_seek=cure == "reset")

    def reset(self, number: int, *, cause: str, detail: str, now_s: float, by_seek: bool = False) -> None:
        """Begin a partition anew at its frontier: the worker dies, the ring is emptied, a new epoch begins.

        Blocks until the worker is dead. What was fetched and not committed is fetched again. ``by_seek``: the client
        keeps its assignment of the partition and is only sent back; else it gives it up and takes it anew.
        """
        old = self._partitions[number]
        metrics.RESETS.labels(cause).inc()
        _log.error("partition %d: %s: %s; anew from offset %s", number, cause, detail, old.ledger.next_offset)
        if self._drain is not None:
            self._drain.note_lost(remainder([old], self._is_committed))
        self._drop([number])  # first, because the worker's last words may still move the frontier
        fresh = self._begin(number, old.ledger.next_offset)
        fresh.inherit(old)
        fresh.restarts += 1
        fresh.restart_at_s = now_s + fresh.backoff.next_s()
        if self._consumer is not None:
            if by_seek and fresh.next_to_place is not None:
                self._consumer.unpause_at(number, fresh.next_to_place)
            else:
                self._consumer.start_at(number, fresh.next_to_place)
            if self._drain is not None:
                self._consumer.pause([number])

    def _poll_timeout_s(self) -> float:
        """How long to wait for Kafka; before that, for the workers, if all is paused and only they can change that."""
        if self._drain is not None or self._is_all_paused:
            # While workers are not heard, what they said would end a wait for them at once, again and again.
            if self._outgoing.is_full:
                self._outgoing.wait(_BUSY_POLL_S)
            else:
                workers.wait(self._partitions.values(), _BUSY_POLL_S)
            return 0.0
        return _BUSY_POLL_S if self._waits_for_space else _IDLE_POLL_S

    def _settle(self, partitions: Collection[Partition], now_s: float) -> None:
        self._throttle.settle(partitions, self._consumer, now_s, is_draining=self._drain is not None)
        self._is_all_paused = self._throttle.is_all_paused
        self._waits_for_space = any(p.waits_for_space for p in self._partitions.values())

    # Commits

    def _candidates(self, numbers: Iterable[int]) -> dict[int, Candidate]:
        found = {number: self._partitions[number].candidate() for number in numbers}
        return {number: candidate for number, candidate in found.items() if candidate is not None}

    def _commit(self, now_s: float) -> None:
        if self._consumer is None:
            return
        candidates = self._candidates(self._partitions)
        offsets = self._committer.due(candidates, now_s, at_once=self._drain is not None)
        if offsets:
            self._committer.sent(candidates, offsets, now_s)
            self._consumer.commit(offsets)

    def on_committed(self, taken: Mapping[int, int], *, asked: Mapping[int, int]) -> None:
        self._committer.answered(asked, taken)
        if self._partitions and self._committer.has_committed:
            self._rebuild_backoff.reset()

    # Assignments; called inside the consumer's calls

    def on_assigned(self, next_offsets: Mapping[int, int | None]) -> None:
        if self._drain is not None and self._consumer is not None:
            self._drop(n for n in next_offsets if n in self._partitions)
            self._consumer.pause(list(next_offsets))  # they go on when we leave; nothing of them is begun here
            _log.info("assigned while draining, not begun: %s", ", ".join(map(str, sorted(next_offsets))))
            return
        for number, next_offset in next_offsets.items():
            fresh = self._begin(number, next_offset)
            if number in self._abandoned:
                fresh.inherit(self._abandoned[number])
        if next_offsets:
            self._abandoned.clear()  # the others are another instance's now
            _log.info("assigned: %s", ", ".join(f"{n} from {o}" for n, o in sorted(next_offsets.items())))
        self._has_joined = True
        self._report(time.monotonic())

    def _begin(self, number: int, next_offset: int | None) -> Partition:
        """A new epoch of the partition, in the place of the one before, if there is one."""
        self._drop([number])
        self._epochs += 1
        fresh = Partition(number, epoch=self._epochs, next_offset=next_offset, settings=self._settings)
        self._partitions[number] = fresh
        self._note_change()
        return fresh

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Only the batch in the sink is finished, and no longer than ``revoke_timeout_s``."""
        if self._is_leaving:
            return
        going = [self._partitions[n] for n in partitions if n in self._partitions]
        deadline_s = time.monotonic() + self._settings.revoke_timeout_s
        self._workers.finish_batches(
            going, self._settings.revoke_timeout_s, meanwhile=lambda: self._pump(time.monotonic())
        )
        self._workers.kill(going)
        candidates = self._candidates(p.number for p in going)
        if self._consumer is not None and not self._committer.is_committed(candidates):
            offsets = {number: candidate.offset for number, candidate in candidates.items()}
            left_s = max(_REVOKE_COMMIT_S, deadline_s - time.monotonic())
            if not self._consumer.commit_confirmed(offsets, left_s):
                _log.warning("Kafka did not take the last commit; the next owner fetches again from the one before")
        if self._drain is not None:
            self._drain.note_handed_over(remainder(going))
        self._drop(partitions)
        _log.info("revoked: %s", ", ".join(map(str, sorted(partitions))))

    def on_lost(self, partitions: Sequence[int]) -> None:
        self._let_go(partitions)
        _log.warning("lost: %s", ", ".join(map(str, sorted(partitions))))

    def _let_go(self, numbers: Sequence[int]) -> None:
        """They are another's, or nobody's: nothing of them is committed any more."""
        going = [self._partitions[n] for n in numbers if n in self._partitions]
        self._workers.kill(going)
        if self._drain is not None and not self._is_leaving:
            self._drain.note_lost(remainder(going, self._is_committed))
        self._drop(numbers)

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._committer.forget(number)
            partition = self._partitions.pop(number, None)
            if partition is not None:
                self._workers.kill([partition])
                partition.close()
                self._placed.discard(partition)
                self._note_change()

    def _note_change(self) -> None:
        """What was known of all partitions is to be seen anew in this turn."""
        self._intake.forget_epochs()
        self._round_at_s = self._look_at_s = 0.0

    # The end

    def _begin_drain(self, now_s: float) -> None:
        self._lifecycle.set_state("draining")
        since_s = self._stop_watch.stopped_at_s
        self._drain = Drain(timeout_s=self._settings.drain_timeout_s, since_s=now_s if since_s is None else since_s)
        if self._consumer is not None:
            self._consumer.pause(list(self._partitions))
        for partition in self._partitions.values():
            partition.expect_no_more()

    def _is_drained(self) -> bool:
        partitions = self._partitions.values()
        return (
            all(p.ledger.is_complete or p.standstill.state == "halted" for p in partitions)
            and self._outgoing.backlog == 0
            and self._committer.is_committed(self._candidates(self._partitions))
        )

    def _leave(self) -> int:
        assert self._drain is not None
        self._is_leaving = True
        operations.say_what_is_left(self._partitions)
        self._workers.end(self._partitions.values(), self._drain.left_s(_LEAVE_TIMEOUT_S))
        if self._consumer is not None and not self._consumer.close_bounded(self._drain.left_s(_LEAVE_TIMEOUT_S)):
            _log.warning("Kafka does not let us leave the group; leaving without")
            exit_now(self._drain.exit_code)
        self._drop(list(self._partitions))
        self._lifecycle.set_state("stopped")
        if not self._lookout.stop(self._drain.left_s(_LEAVE_TIMEOUT_S)):
            exit_now(self._drain.exit_code)
        return self._drain.exit_code

    def _remainder(self) -> str:
        """Of the partitions as they are now; also called by the stop watch's thread while this one hangs."""
        return remainder(list(self._partitions.values()), self._is_committed)

    def _is_committed(self, partition: Partition) -> bool:
        candidate = partition.candidate()
        return candidate is None or self._committer.is_committed({partition.number: candidate})

    # What others see

    def _report(self, now_s: float) -> None:
        unanswered_s = self._committer.unanswered_s(now_s)
        pictures = {
            n: p.picture(committed=self._committer.committed_offset(n)) | self._lookout.picture(p, now_s)
            for n, p in sorted(self._partitions.items())
        }
        self._status.publish(self._settings, pictures, commit_unanswered_s=unanswered_s)
        if self._has_joined and self._drain is None:
            late = unanswered_s > _DEGRADED_AFTER_S
            reasons = [f"Kafka has taken no commit for {_DEGRADED_AFTER_S:g} s"] if late else []
            reasons += operations.degraded_reasons(self._partitions, now_s)
            self._lifecycle.set_state("degraded" if reasons else "ready", "; ".join(reasons))
