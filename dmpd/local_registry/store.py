"""The RAE's database: device records, their revs and the outbox, changed together or not at all. Alone in using SQLite.

WAL with synchronous=FULL: what ``commit`` returned for survives a power cut. All methods block for the disk; the engine
calls them one at a time on an executor thread. A database that is damaged is set aside, never repaired: the caller
begins a new epoch and fills a new one from ``identity.json`` and the LAN.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from dmpd.local_registry.outbox import Backlog, Row
from dmpd.local_registry.request_table import Quota, RequestEntry, RequestTable, Verdict
from dmpd.local_registry.store_schema import MIGRATIONS
from dmpd.model.limits import EPOCH_MAX
from dmpd.model.messages import ClosedReason
from dmpd.model.record import DeviceRecord

DATABASE_NAME: Final = "registry.db"
SEQ_BLOCK: Final = 1000
SENT_BLOCK: Final = 500

_COMMITTED_TOTAL: Final = (
    "SELECT coalesce((SELECT sum(rev) FROM device), 0)"
    " + coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'purged_revs'), 0)"
)

_record_decoder = msgspec.json.Decoder(DeviceRecord)


class StoreError(Exception):
    """The store refused: disk full, read-only, locked. Nothing of the call was kept; try again later."""


class StoreCorruptError(StoreError):
    """The file is damaged; only ``set_aside`` helps."""


class StoreTooNewError(Exception):
    """Written by a later dmpd. Permanent: downgrade means restoring the copy."""


class StoredDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device session as the disk has it. ``closed`` names the reason of one that has ended."""

    session: str
    epoch: int
    rev: int
    first_seq: int
    record: DeviceRecord
    closed: ClosedReason | None = None


class DeviceWrite(NamedTuple):
    """The new state of one session: ``record`` is its JSON."""

    session: str
    epoch: int
    rev: int
    first_seq: int
    record: bytes
    closed: str | None = None
    closed_at_ms: int | None = None


class Commit(msgspec.Struct, kw_only=True):
    """What one transaction changes. Everything, or nothing."""

    devices: list[DeviceWrite] = []
    rows: list[Row] = []
    durable: list[int] = []
    """Outbox rows that the bridge has stored: they are deleted."""
    superseded: list[tuple[str, int]] = []
    """(session, seq): this session's replaceable rows beyond seq are deleted; a later row covers them."""
    forgotten: list[str] = []
    """Sessions that the cloud never heard of: device and rows are deleted."""
    answers: list[RequestEntry] = []
    """Requests that have their response."""
    meta: dict[str, str] = {}


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What the store held at its opening."""

    epoch: int
    boot_id: str
    seq_next: int
    rebuilt_ms: int
    """When a damaged store was begun anew, wall clock; 0 = never."""
    sent_through: int
    """Rows up to here may have been sent in an earlier life: they are frozen."""
    run: int
    devices: list[StoredDevice]
    """Open sessions only."""
    outbox_rows: int
    outbox_bytes: int


class Deleted(NamedTuple):
    """What a commit took out of the outbox besides the durable rows."""

    rows: int
    bytes: int


class Store:
    """One open database. Raises StoreError, or StoreCorruptError, from every method. Not for two threads at once."""

    def __init__(self, state_dir: Path, *, pages_max: int | None = None) -> None:
        """Open or create; checks the whole file (``quick_check``) and brings its schema up to date.

        Args:
            state_dir: Folder, created with mode 0750 when absent.
            pages_max: Bound of the file in pages of 4 KiB; absent = the disk's.
        """
        self.path = state_dir / DATABASE_NAME
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        with _translated():
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5)
            try:
                self._prepare(pages_max)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self, pages_max: int | None) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA journal_size_limit=1048576")
        self._db.execute("PRAGMA cache_size=-512")
        if pages_max is not None:
            self._db.execute(f"PRAGMA max_page_count={pages_max:d}")
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreCorruptError(str(verdict))
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreTooNewError(f"{self.path}: schema {version}, this dmpd knows {len(MIGRATIONS)}")
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            self._db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")

    def load(self) -> Loaded:
        """Everything the engine keeps in memory."""
        with _translated():
            meta = dict(self._db.execute("SELECT name, value FROM meta"))
            rows, bytes_held, last = self._db.execute(
                "SELECT count(*), coalesce(sum(bytes), 0), coalesce(max(seq), 0) FROM outbox"
            ).fetchone()
            try:
                return Loaded(
                    epoch=_epoch(meta.get("epoch", "0")),
                    boot_id=meta.get("boot_id", ""),
                    seq_next=max(int(meta.get("seq_limit", "0")), last) + 1,
                    rebuilt_ms=int(meta.get("rebuilt_ms", "0")),
                    sent_through=int(meta.get("sent_through", "0")),
                    run=int(meta.get("run", "0")),
                    devices=list(_devices(self._db, "WHERE closed IS NULL")),
                    outbox_rows=rows,
                    outbox_bytes=bytes_held,
                )
            except (ValueError, msgspec.MsgspecError) as error:
                raise StoreCorruptError(f"unreadable content: {error}") from error

    def commit(self, commit: Commit) -> Deleted:
        """Make ``commit`` durable as one transaction; returns what ``superseded`` and ``forgotten`` deleted."""
        with _translated(), self._transaction():
            deleted_rows = deleted_bytes = 0
            for condition, arguments in _deletions(commit):
                rows, bytes_held = self._db.execute(
                    f"SELECT count(*), coalesce(sum(bytes), 0) FROM outbox WHERE {condition}",  # noqa: S608 - constants
                    arguments,
                ).fetchone()
                self._db.execute(f"DELETE FROM outbox WHERE {condition}", arguments)  # noqa: S608 - constants
                deleted_rows += rows
                deleted_bytes += bytes_held
            self._db.executemany("DELETE FROM outbox WHERE seq = ?", ((seq,) for seq in commit.durable))
            self._db.executemany("DELETE FROM device WHERE session = ?", ((one,) for one in commit.forgotten))
            self._db.executemany("INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?, ?, ?, ?)", commit.devices)
            self._db.executemany(
                "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (row.seq, row.session, row.kind, row.epoch, row.at_ms, len(row.payload), row.payload, row.requester)
                    for row in commit.rows
                ),
            )
            RequestTable(self._db).answered(commit.answers)
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", commit.meta.items())
            return Deleted(deleted_rows, deleted_bytes)

    def rows_after(self, seq: int, *, rows_max: int, bytes_max: int) -> list[Row]:
        """The oldest outbox rows beyond ``seq``, ascending; at least one if there is any."""
        rows: list[Row] = []
        with _translated():
            cursor = self._db.execute(
                "SELECT seq, session, kind, epoch, at_ms, payload, requester FROM outbox"
                " WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, rows_max),
            )
            for values in cursor:
                row = Row(*values)
                bytes_max -= len(row.payload)
                if rows and bytes_max < 0:
                    break
                rows.append(row)
            cursor.close()
        return rows

    def backlogs(self, after_seq: int) -> tuple[list[Backlog], int]:
        """What waits unsent beyond ``after_seq``: per session its replaceable rows, and the number of events."""
        with _translated():
            backlogs = self._db.execute(
                "SELECT session, count(*), sum(bytes), min(at_ms) FROM outbox"
                " WHERE seq > ? AND kind IN ('change', 'checkpoint') GROUP BY session",
                (after_seq,),
            )
            events = self._db.execute("SELECT count(*) FROM outbox WHERE seq > ? AND kind = 'event'", (after_seq,))
            return [Backlog(*values) for values in backlogs], events.fetchone()[0]

    def drop_events(self, after_seq: int, count: int) -> Deleted:
        """Delete the ``count`` oldest unsent events."""
        with _translated(), self._transaction():
            chosen = self._db.execute(
                "SELECT seq, bytes FROM outbox WHERE seq > ? AND kind = 'event' ORDER BY seq LIMIT ?",
                (after_seq, count),
            ).fetchall()
            self._db.executemany("DELETE FROM outbox WHERE seq = ?", ((seq,) for seq, _ in chosen))
            return Deleted(len(chosen), sum(held for _, held in chosen))

    def sessions_in_outbox(self) -> list[str]:
        """Device sessions with rows not yet durable, and no ``closed`` among them."""
        with _translated():
            return [
                session
                for (session,) in self._db.execute(
                    "SELECT session FROM outbox WHERE session != 'rae' AND kind != 'response'"
                    " GROUP BY session HAVING sum(kind = 'closed') = 0 ORDER BY session"
                )
            ]

    def accept(self, asked: Sequence[RequestEntry], quota: Quota) -> list[Verdict]:
        """Note which of ``asked`` are new, as one transaction; see ``RequestTable.accept``."""
        with _translated(), self._transaction():
            table = RequestTable(self._db)
            return [table.accept(entry, quota) for entry in asked]

    def unanswered(self) -> list[RequestEntry]:
        """The requests without a response: after a start, those that the end of the last life interrupted."""
        with _translated():
            return RequestTable(self._db).unanswered()

    def forget_requests(self, *, before_ms: int, shift_ms: int) -> None:
        """Move all times of receipt by ``shift_ms`` (the wall clock jumped), then forget those before ``before_ms``."""
        with _translated(), self._transaction():
            RequestTable(self._db).forget(before_ms=before_ms, shift_ms=shift_ms)

    def committed_total(self) -> int:
        """Σ rev over all device sessions, open and closed; those purged still count."""
        with _translated():
            return int(self._db.execute(_COMMITTED_TOTAL).fetchone()[0])

    def purge(self, before_ms: int) -> None:
        """Delete the sessions that closed before ``before_ms`` and have nothing waiting; their revs stay counted."""
        condition = "closed_at_ms < ? AND session NOT IN (SELECT session FROM outbox)"
        with _translated(), self._transaction():
            revs = self._db.execute(f"SELECT sum(rev) FROM device WHERE {condition}", (before_ms,)).fetchone()[0]  # noqa: S608 - a constant
            if revs is None:
                return
            self._db.execute(f"DELETE FROM device WHERE {condition}", (before_ms,))  # noqa: S608 - a constant
            self._db.execute(
                "INSERT INTO meta VALUES ('purged_revs', ?1)"
                " ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + ?1",
                (revs,),
            )

    def oldest_at_ms(self) -> int | None:
        """When the oldest outbox row was written; None = the outbox is empty."""
        with _translated():
            found = self._db.execute("SELECT at_ms FROM outbox ORDER BY seq LIMIT 1").fetchone()
            return None if found is None else int(found[0])

    def close(self) -> None:
        """Fold the log into the file and close. Harmless twice."""
        with contextlib.suppress(sqlite3.Error):  # nothing is lost: the next opening reads the log
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def set_aside(state_dir: Path, stamp: str) -> Path | None:
    """Move a damaged database (with its log) out of the way for a person to look at; only the newest three stay.

    Returns:
        Its new place, or None when there was no file.
    """
    path = state_dir / DATABASE_NAME
    target = state_dir / f"{DATABASE_NAME}.damaged-{stamp}"
    moved = None
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            moved = source.rename(target.with_name(target.name + suffix))
    for old in sorted(state_dir.glob(f"{DATABASE_NAME}.damaged-*[0-9]"))[:-3]:
        for suffix in ("", "-wal", "-shm"):
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return None if moved is None else target


def read_devices(path: Path) -> list[StoredDevice]:
    """All device sessions of the database at ``path``, open and closed, as of now. Opens it read-only.

    Raises:
        StoreError: The file is absent or cannot be read.
    """
    with _read_only(path) as db:
        return list(_devices(db, ""))


def committed_total(path: Path) -> int:
    """Σ rev over all device sessions, open and closed: the changes that were ever committed. Opens it read-only."""
    with _read_only(path) as db:
        return int(db.execute(_COMMITTED_TOTAL).fetchone()[0])


@contextlib.contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    with _translated(), contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        yield db


def _devices(db: sqlite3.Connection, where: str) -> Iterator[StoredDevice]:
    cursor = db.execute(f"SELECT session, epoch, rev, first_seq, record, closed FROM device {where} ORDER BY session")  # noqa: S608 - constants
    for session, epoch, rev, first_seq, record, closed in cursor:
        yield StoredDevice(
            session=session,
            epoch=epoch,
            rev=rev,
            first_seq=first_seq,
            record=_record_decoder.decode(record),
            closed=closed,
        )


def _epoch(text: str) -> int:
    epoch = int(text)
    if not 0 <= epoch < EPOCH_MAX:
        raise ValueError(f"epoch {epoch}")
    return epoch


def _deletions(commit: Commit) -> Iterable[tuple[str, Sequence[str | int]]]:
    for session, seq in commit.superseded:
        yield "session = ? AND seq > ? AND kind IN ('change', 'checkpoint')", (session, seq)
    for session in commit.forgotten:
        yield "session = ? AND kind != 'response'", (session,)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours: damage apart from what passes."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreCorruptError(str(error)) from error
        raise StoreError(f"{type(error).__name__}: {error}") from error
    except OSError as error:
        raise StoreError(str(error)) from error
