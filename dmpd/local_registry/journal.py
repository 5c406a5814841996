"""The store of one RAE as its event loop sees it: commits, the window onto the outbox, its bounds and its epoch.

All disk work runs on an executor thread, one call at a time under one lock, so that what the window has loaded (and so
frozen) never changes between the planning of a transaction and its end.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from dmpd.local_registry import identity_file, metrics
from dmpd.local_registry.answers import AnswerBook, RequestAges
from dmpd.local_registry.identity import IdentityFile
from dmpd.local_registry.outbox import Row, Window, events_to_drop, sessions_to_coalesce
from dmpd.local_registry.planning import Occasion
from dmpd.local_registry.registry import Registry
from dmpd.local_registry.request_table import Quota, RequestEntry, Verdict
from dmpd.local_registry.settings import OutboxSettings
from dmpd.local_registry.store import (
    SENT_BLOCK,
    SEQ_BLOCK,
    Commit,
    Deleted,
    Store,
    StoreCorruptError,
    StoreError,
    set_aside,
)
from dmpd.model.epochs import RANDOM_VALUES, next_epoch

RUN_BLOCK: Final = 100
AGED_CHECK_S: Final = 600.0
PURGE_INTERVAL_S: Final = 86_400.0
CLOSED_KEPT_MS: Final = 90 * 86_400_000
"""Closed sessions are kept for those who compare; longer than Kafka keeps anything of them."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The wall clock with the resolution of the messages."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Journal:
    """One RAE's store, outbox counters and window. Life: ``open``, then the rest in any order, then ``close``."""

    def __init__(
        self,
        registry: Registry,
        state_dir: Path,
        *,
        bounds: OutboxSettings,
        executor: Executor,
        random: Callable[[], float],
        boot_id: str,
        pages_max: int | None = None,
    ) -> None:
        self._registry = registry
        self._state_dir = state_dir
        self._bounds = bounds
        self._executor = executor
        self._random = random
        self._boot_id = boot_id
        self._pages_max = pages_max
        self._lock = asyncio.Lock()
        self._store: Store | None = None
        self.window = Window(random)
        self.epoch = 0
        self.rows = 0
        """Outbox rows not yet durable, and their payload bytes."""
        self.bytes_held = 0
        self.committed = 0
        self.seq_high = 0
        self.events_dropped = 0
        self.sending = False
        """Whether there is a connection: only then rows are loaded, and thereby frozen."""
        self.trouble: str | None = None
        """What the disk refused last, until it works again."""
        self._oldest_at_ms: int | None = None
        self._seq_limit = 0
        self._sent_limit = 0
        self._run = 0
        self._run_limit = 0
        self._durable: list[int] = []
        self._frozen_at_start = 0
        self._closed = False
        self._aged_check_s = 0.0
        self._purged_s: float | None = None
        self.answers = AnswerBook()
        self._request_ages = RequestAges()
        self._unwritten: dict[str, str] = {}
        """Epoch and boot of a life whose first commit the disk has not taken yet."""

    @property
    def ready(self) -> bool:
        """Whether there is an epoch on the disk: nothing may be sent under one that a crash would forget."""
        return self._store is not None and self.epoch > 0 and not self._unwritten

    @property
    def pending(self) -> bool:
        """Whether there is anything to commit."""
        return self._registry.pending or bool(self.answers)

    @property
    def oldest_at_ms(self) -> int | None:
        """When the oldest row not yet durable was written; None = there is none."""
        return (self.window.oldest_at_ms or self._oldest_at_ms) if self.rows else None

    @property
    def behind(self) -> int:
        """Rows in the store that the window has not loaded."""
        return self.rows - len(self.window)

    @property
    def frozen_through(self) -> int:
        """Rows up to here may have been sent, in this life or an earlier one."""
        return max(self.window.loaded_through, self._frozen_at_start)

    async def open(self) -> None:
        """Open the store, or begin a new one in place of a damaged one, and bring the registry's devices in.

        Raises:
            StoreError: The disk refuses; nothing was begun, call again later.
            StoreTooNewError: Permanent.
        """
        async with self._lock:
            if self._store is not None:
                self._store.close()
            known = await self._on_disk(lambda: identity_file.read(self._state_dir))
            try:
                self._store = await self._on_disk(self._open_store)
                loaded = await self._on_disk(self._store.load)
                self.committed = await self._on_disk(self._store.committed_total)
            except StoreCorruptError as error:
                await self._set_aside(error)
                self._store = await self._on_disk(self._open_store)
                loaded = await self._on_disk(self._store.load)
                self.committed = 0
            self._seq_limit = self.seq_high = loaded.seq_next - 1
            self._sent_limit = self._frozen_at_start = loaded.sent_through
            self._run = self._run_limit = loaded.run
            self.answers.rebuilt_ms = self.answers.rebuilt_ms or loaded.rebuilt_ms
            self.rows, self.bytes_held = loaded.outbox_rows, loaded.outbox_bytes
            self._oldest_at_ms = await self._on_disk(self._store.oldest_at_ms)
            now_s, at = time.monotonic(), utc_now()
            if loaded.epoch == 0:
                self._registry.rebuild(known, now_s=now_s, at=at)
                if known.holders:
                    self.answers.rebuilt_ms = time.time_ns() // 1_000_000
                    metrics.stores_rebuilt.inc()
                    self._registry.event("store_rebuilt", at=at, epoch=1, sessions=len(known.holders))
            else:
                self._registry.restore(loaded.devices, known, now_s)
            self.epoch = loaded.epoch
            for entry in await self._on_disk(self._store.unanswered):
                self.answers.add_interrupted(entry, rae=self._registry.rae, at=at)
            if loaded.epoch == 0 or loaded.boot_id != self._boot_id:
                await self._begin_epoch(max(loaded.epoch, known.epoch))
            await self._write_identity()

    async def commit(self) -> bool:
        """Commit what waits in the registry; False if the disk refused (``trouble``), to be tried again."""
        async with self._lock:
            try:
                await self._commit()
            except StoreError as error:
                return await self._troubled(error)
            return True

    async def accept(self, asked: list[RequestEntry], quota: Quota) -> list[Verdict]:
        """Note which of ``asked`` are new, before they run; what returned ``new`` is on the disk.

        Raises:
            StoreError: The disk refuses; none of them may run.
        """
        async with self._lock:
            try:
                store = self._opened()
                verdicts = await self._on_disk(lambda: store.accept(asked, quota))
            except StoreError as error:
                await self._troubled(error)
                raise
            return verdicts

    async def raise_epoch(self, *, refused: int, above: int) -> bool:
        """Begin an epoch above ``above`` if ``refused`` is ours still; False if it is not, or is higher already.

        Raises:
            StoreError: The disk refuses; the epoch is as before.
        """
        async with self._lock:
            if self.epoch != refused or above <= refused:
                return False
            try:
                if self._durable:  # or they would be loaded again
                    await self._flush_durable()
            except StoreError as error:
                await self._troubled(error)
                raise
            self.sending = False  # the connection is of the old epoch; it ends with the next tick
            self._frozen_at_start = self.frozen_through
            self.window.clear()
            try:
                await self._begin_epoch(above)
            except StoreError as error:  # tried again with the next commit; nothing is sent until then
                await self._troubled(error)
            return True

    async def refill(self) -> bool:
        """Load the next rows into the window; True if any came."""
        async with self._lock:
            rows_free, bytes_free = self.window.room
            if not self.sending or self.behind <= 0 or not rows_free or bytes_free <= 0:
                return False
            after = self.window.loaded_through
            try:
                store = self._opened()
                rows = await self._on_disk(lambda: store.rows_after(after, rows_max=rows_free, bytes_max=bytes_free))
                await self._allow_sending(rows)
            except StoreError as error:
                return await self._troubled(error)
            if not rows:  # the counters are wrong, the disk is right
                _log.error("outbox counters said %d rows behind, the store has none", self.behind)
                self.rows, self.bytes_held = len(self.window), self.window.bytes_held
            return self.window.load(rows) > 0

    def stored(self, ranges: list[tuple[int, int]], now_s: float) -> int:
        """The bridge has these rows of our epoch: they are done. Their deletion follows with the next commit."""
        done = self.window.durable(ranges, now_s)
        self._durable.extend(row.seq for row in done)
        self.rows -= len(done)
        self.bytes_held -= sum(len(row.payload) for row in done)
        metrics.rows_durable.inc(len(done))
        return len(done)

    async def tidy(self, *, final: bool = False) -> None:
        """Once a second or so: delete durable rows, keep the bounds, forget what closed long ago."""
        now_s = time.monotonic()
        if self._purged_s is None or now_s - self._purged_s > PURGE_INTERVAL_S:
            self._purged_s = now_s
            await self._purge()
        await self._forget_requests(now_s)
        if not self._durable and self.rows == 0 and not final:
            return
        async with self._lock:
            try:
                if self._durable:
                    await self._flush_durable()
                if not self.window:
                    self._oldest_at_ms = await self._on_disk(self._opened().oldest_at_ms)
                await self._keep_bounds()
            except StoreError as error:
                await self._troubled(error)

    async def next_run(self) -> int:
        """The number of the next connection; persisted in blocks (holes are legal), in memory alone on a full disk."""
        self._run += 1
        if self._run > self._run_limit:
            async with self._lock:
                limit = self._run + RUN_BLOCK
                try:
                    await self._write(Commit(meta={"run": str(limit)}))
                    self._run_limit = limit
                except StoreError as error:
                    await self._troubled(error)
        return self._run

    async def close(self) -> None:
        """Close the store; whatever comes later is refused."""
        async with self._lock:
            self._closed = True
            if self._store is not None:
                await self._on_disk(self._store.close)
                self._store = None

    async def _purge(self) -> None:
        before_ms = time.time_ns() // 1_000_000 - CLOSED_KEPT_MS
        async with self._lock:
            try:
                store = self._opened()
                await self._on_disk(lambda: store.purge(before_ms))
            except StoreError as error:
                await self._troubled(error)

    async def _forget_requests(self, now_s: float) -> None:
        now_ms = time.time_ns() // 1_000_000
        due = self._request_ages.due(now_s, now_ms)
        if due is None:
            return
        async with self._lock:
            try:
                store = self._opened()
                await self._on_disk(lambda: store.forget_requests(before_ms=due.before_ms, shift_ms=due.shift_ms))
                self._request_ages.done(now_s, now_ms)
            except StoreError as error:
                await self._troubled(error)

    # --- under the lock ---------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        start_s = time.monotonic()
        seq = self.seq_high

        def next_seq() -> int:
            nonlocal seq
            seq += 1
            return seq

        plan = self._registry.plan(
            Occasion(
                rae=self._registry.rae,
                epoch=self.epoch,
                at=utc_now(),
                next_seq=next_seq,
                loaded_through=self.frozen_through,
            )
        )
        commit = plan.commit
        answers = self.answers.into(commit, epoch=self.epoch, next_seq=next_seq)
        commit.meta.update(self._unwritten)
        commit.durable, self._durable = self._durable, []
        if seq > self._seq_limit:
            commit.meta["seq_limit"] = str(seq + SEQ_BLOCK)
        direct = self.sending and self.behind == 0
        if direct and seq > self._sent_limit:
            commit.meta["sent_through"] = str(seq + SENT_BLOCK)
        self.seq_high = seq  # burned even if the disk refuses: a number is never used twice
        if not (commit.rows or commit.devices or commit.durable or commit.forgotten or commit.meta):
            return
        try:
            deleted = await self._write(commit)
        except StoreError:
            self._durable.extend(commit.durable)
            self._registry.refused(plan)
            raise
        self._unwritten = {}
        self._seq_limit = int(commit.meta.get("seq_limit", self._seq_limit))
        self._sent_limit = int(commit.meta.get("sent_through", self._sent_limit))
        self.rows += len(commit.rows) - deleted.rows
        self.bytes_held += sum(len(row.payload) for row in commit.rows) - deleted.bytes
        if self.rows == len(commit.rows):
            self._oldest_at_ms = commit.rows[0].at_ms if commit.rows else None
        if direct:
            self.window.load(commit.rows)
        self.answers.done(answers)
        revisions = self._registry.committed(plan)
        self.committed += revisions
        metrics.revisions.inc(max(0, revisions))
        metrics.commit_seconds.observe(time.monotonic() - start_s)
        if self._registry.identity_changed or self._registry.identity.changed:
            await self._write_identity()

    async def _begin_epoch(self, last: int) -> None:
        """A new life: every row not yet durable is restamped when sent, with a checkpoint row behind its session."""
        sessions = await self._on_disk(self._opened().sessions_in_outbox)
        self._registry.want_checkpoint_rows(sessions, supersede=False)
        self.epoch = next_epoch(last, time.time_ns() // 1_000_000, int(self._random() * RANDOM_VALUES))
        self._unwritten = {"epoch": str(self.epoch), "boot_id": self._boot_id}
        if self.answers.rebuilt_ms:
            self._unwritten["rebuilt_ms"] = str(self.answers.rebuilt_ms)
        await self._commit()
        _log.info("epoch %d begins; %d sessions have rows of an earlier one", self.epoch, len(sessions))

    async def _rebuild(self, error: StoreError) -> None:
        """The file was damaged while we ran: memory has the truth, a new epoch tells it anew."""
        metrics.stores_rebuilt.inc()
        await self._set_aside(error)
        self._store = await self._on_disk(self._open_store)
        self.sending = False
        self.window.clear()
        self.rows = self.bytes_held = self.committed = 0
        self._seq_limit = self._sent_limit = self._run_limit = self._frozen_at_start = 0
        self._durable = []
        self._registry.store_lost()
        self._registry.event("store_rebuilt", at=utc_now(), epoch=1, sessions=len(self._registry.devices))
        await self._begin_epoch(self.epoch)
        self.committed = await self._on_disk(self._opened().committed_total)

    async def _keep_bounds(self) -> None:
        bounds = self._bounds
        now_ms = time.time_ns() // 1_000_000
        now_s = time.monotonic()
        aged = self.oldest_at_ms is not None and now_ms - self.oldest_at_ms > bounds.age_max_s * 1000
        aged = aged and now_s - self._aged_check_s > AGED_CHECK_S
        if self.rows <= bounds.rows_max and self.bytes_held <= bounds.bytes_max and not aged:
            return
        self._aged_check_s = now_s
        store, frozen = self._opened(), self.frozen_through
        backlogs, events = await self._on_disk(lambda: store.backlogs(frozen))
        excess = events_to_drop(events, bounds)
        if excess:
            deleted = await self._on_disk(lambda: store.drop_events(frozen, excess))
            self._deleted(deleted.rows, deleted.bytes)
            self.events_dropped += deleted.rows
            metrics.events_dropped.inc(deleted.rows)
        chosen = sessions_to_coalesce(
            backlogs, rows=self.rows, bytes_held=self.bytes_held, now_ms=now_ms, bounds=bounds
        )
        closed = self._registry.want_checkpoint_rows(chosen, supersede=True)
        before = self.rows
        if closed:
            deleted = await self._write(Commit(superseded=[(session, frozen) for session in closed]))
            self._deleted(deleted.rows, deleted.bytes)
        if len(closed) < len(chosen):
            await self._commit()
        if chosen:
            metrics.rows_coalesced.inc(max(0, before - self.rows))
            _log.warning("outbox over its bound: %d rows became %d", before, self.rows)

    def _deleted(self, rows: int, bytes_held: int) -> None:
        self.rows -= rows
        self.bytes_held -= bytes_held

    async def _flush_durable(self) -> None:
        durable, self._durable = self._durable, []
        try:
            await self._write(Commit(durable=durable))
        except StoreError:
            self._durable = durable + self._durable
            raise

    async def _allow_sending(self, rows: list[Row]) -> None:
        """Persist that these rows may be sent, before they are: a later life must not change what was seen."""
        if rows and rows[-1].seq > self._sent_limit:
            limit = rows[-1].seq + SENT_BLOCK
            await self._write(Commit(meta={"sent_through": str(limit)}))
            self._sent_limit = limit

    async def _troubled(self, error: StoreError) -> bool:
        """Note what the disk said; a damaged file is replaced. Always False, for the caller to return."""
        metrics.commits.labels("refused").inc()
        if self.trouble is None:
            _log.error("store: %s (devices go on in memory)", error)
        self.trouble = str(error)
        if self._closed:
            return False
        if isinstance(error, StoreCorruptError) or self._store is None:
            try:
                await self._rebuild(error)
            except (StoreError, OSError) as again:
                _log.error("store: not rebuilt yet: %s", again)
                self.trouble = str(again)
        return False

    async def _set_aside(self, error: StoreError) -> None:
        if self._store is not None:
            await self._on_disk(self._store.close)
            self._store = None
        stamp = utc_now().strftime("%Y%m%d%H%M%S")
        place = await self._on_disk(lambda: set_aside(self._state_dir, stamp))
        self.answers.rebuilt_ms = time.time_ns() // 1_000_000
        _log.error("database damaged (%s), set aside as %s; a new epoch begins", error, place)

    async def _write(self, commit: Commit) -> Deleted:
        deleted = await self._on_disk(lambda: self._opened().commit(commit))
        metrics.commits.labels("done").inc()
        if self.trouble is not None:
            _log.warning("store: works again")
            self.trouble = None
        return deleted

    async def _write_identity(self) -> None:
        content: IdentityFile = self._registry.identity_file(self.epoch)
        self._registry.identity_changed = self._registry.identity.changed = False
        try:
            await self._on_disk(lambda: identity_file.write(self._state_dir, content))
        except OSError as error:
            _log.error("identity.json not written, tried again with the next change: %s", error)
            self._registry.identity_changed = True

    def _open_store(self) -> Store:
        return Store(self._state_dir, pages_max=self._pages_max)

    def _opened(self) -> Store:
        if self._store is None:
            raise StoreError("the store is closed")
        return self._store

    async def _on_disk(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:  # the thread goes on whatever we do: nobody else may touch the store until then
            await asyncio.wait({future})
            raise
